"""A board with one of everything, of which every word may be a stranger's attack."""

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchbench.leaderboard.board_folder import Connected, Expected, Level, Reported, Source
from benchbench.leaderboard.table import ALL_DIAGNOSTICS
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.records import (
    Diagnostics,
    Record,
    Snapshot,
    Validators,
    prediction_name,
    read_record,
)

DIGITS = Path(__file__).parents[2] / "leaderboards" / "digits"
METHODS = ("erm", "dann", "simclr", "tuned", "half", "broken", "absent", "random", "ceiling")
SHIFTS, SEEDS, CLASSES = ("a > b", "b > a"), (0, 1, 2), 14
ATTACKS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></title></textarea></table><h1>owned",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "\" autofocus onfocus=alert(1) x=\"",
    "javascript:alert(1)",
    "https://example.org/\"onmouseover=\"alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png) **bold** `code` *em* | cell | # head",
    "<https://evil.example> https://evil.example",
    "{{ 7 * 7 }}{% for x in y %}{# comment #}",
    "${alert(1)} `${alert(1)}`",
    "\u202eevil\u202c \u2066x\u2069 \u200b\u2028\u2029",
    "\x1b[31mred\x1b[0m \x00\x07\x08\x7f\x9b",
    "line one\nline two\r\n\n# head\n---\nkey: value",
    "&lt;script&gt; &amp; &#106;avascript: <!-- <![CDATA[ ]]> -->",
    "'; rm -rf / #$(reboot)`reboot`",
    "é 漢字 🙂 \ud83d",
)  # fmt: skip


def two_stages() -> Record:
    """A real record of two stages, to be varied."""
    return read_record(min((DIGITS / "records").glob("simclr-finetune--*.json")))


@dataclass
class Words:
    """Every text of strangers, told by a suffix: harmless, or an attack."""

    suffix: str = ""

    def __call__(self, text: str) -> str:
        return text + self.suffix


@dataclass
class Each:
    """Every text of strangers, each with the next of the attacks; or as long, and harmless."""

    attacks: tuple[str, ...]
    harmless: bool = False
    found: dict[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        attack = self.found.setdefault(text, self.attacks[len(self.found) % len(self.attacks)])
        return text + ("x" * len(attack) if self.harmless else attack)


def boards_of(attacks: tuple[str, ...]):
    """What strangers say on one board, each attack in fields of its own, and harmless words.

    In slow every attack in all fields at once, to name the one that gets through.
    """
    each = Each(attacks)
    alone = [(Words(attack), Words("x" * len(attack))) for attack in attacks]
    return pytest.mark.parametrize(
        ("said", "harmless"),
        [
            pytest.param(each, replace(each, harmless=True), id="each"),
            *(pytest.param(*p, id=f"{n}", marks=pytest.mark.slow) for n, p in enumerate(alone)),
        ],
    )


def plain(text: str) -> str:
    return text


def crowded(template: Record, said=plain) -> Source:
    """A board with one of everything; ``said`` makes of a word what the records say."""
    random = np.random.RandomState(0)
    labels = {d: random.randint(0, CLASSES, 120) for d in "ab"}
    kept, stale, records = {}, {}, []

    def wrong(domain, share):
        there = labels[domain]
        return np.where(random.rand(len(there)) < share, there, (there + 1) % CLASSES)

    def made(method, shift, seed, draw=0):
        skill = 0.4 + 0.05 * METHODS.index(method) + 0.1 * draw
        source, _, target = shift.partition(" > ")
        snapshots = (3,) if method == "tuned" else ()
        guesses = {
            prediction_name(target, step): wrong(target, skill) for step in (None, *snapshots)
        }
        right = {name: float((p == labels[target]).mean()) for name, p in guesses.items()}
        stages = [f"{n}{METHODS.index(method)}{seed}{draw}".ljust(64, "0") for n in (1, 2)]

        def scores(name):
            return tuple(
                score.model_copy(update={"domain": d, "accuracy": value, "value": value})
                for score, d, value in zip(
                    template.scores, (source, target), (0.9, right[name]), strict=True
                )
            )

        spec = template.spec
        chain = tuple(
            stage.model_copy(
                update={
                    "objective": said(stage.objective),
                    "augmentation": said("crop | flip"),
                    "weak": said("crop"),
                    "reads": (said("labels"),),
                    "domains": (said("a"),),
                }
            )
            for stage in spec.chain
        )
        record = template.model_copy(
            update={
                "suite": said("crowd"),
                "method": said(method),
                "shift": said(shift),
                "cell_id": f"{method}{shift}{seed}{draw}",
                "protocol": said("uda/1"),
                "seeds": template.seeds.model_copy(update={"train": seed}),
                "draw": draw,
                "scores": scores(target),
                "validators": Validators(source_val=skill, entropy=-skill, target_val=skill),
                "snapshots": tuple(
                    Snapshot(
                        step=step,
                        selection=template.selection,
                        scores=scores(prediction_name(target, step)),
                        validators=Validators(source_val=0.2, entropy=0.5, target_val=0.99),
                    )
                    for step in snapshots
                ),
                "diagnostics": Diagnostics(**dict.fromkeys(ALL_DIAGNOSTICS, 0.25 + seed / 10)),
                "artifacts": template.artifacts.model_copy(update={"stages": tuple(stages)}),
                "spec": spec.model_copy(
                    update={
                        "encoder": said("small_cnn(width=4)"),
                        "readout": said("head"),
                        "chain": () if method == "random" else chain,
                        "labels": "target" if method == "ceiling" else "source",
                    }
                ),
                "data": template.data.model_copy(
                    update={
                        "dataset": said("tiny"),
                        "licence": said("CC BY 4.0"),
                        "sources": (source,),
                        "targets": (target,),
                    }
                ),
                "environment": template.environment.model_copy(
                    update={
                        "device": said("a machine"),
                        "platform": said("Linux"),
                        "packages": {"torch": said("2"), said("numpy"): said("2")},
                    }
                ),
                "plugins": tuple(
                    plugin.model_copy(
                        update={
                            "name": said(plugin.name),
                            "distribution": said("dist"),
                            "version": said("1"),
                            "used": tuple(map(said, plugin.used)),
                        }
                    )
                    for plugin in template.plugins
                ),
            }
        )
        kept[record.cell_id] = guesses
        if method == "broken" and seed:
            told = {"status": "failed", "reason": said("it broke"), "scores": (), "artifacts": None}
            return record.model_copy(update=told | {"cost": None, "validators": None})
        if method == "half" and shift == "a > b":
            stale[record.cell_id] = said("other data")
        return record

    for method, shift, seed in product(METHODS, SHIFTS, SEEDS):
        if method != "absent" and not (method == "half" and shift == "b > a" and seed == 1):
            records += [
                made(method, shift, seed, draw) for draw in range(2 if method == "tuned" else 1)
            ]
    fingerprint = template.data.fingerprint
    return Source(
        said("crowd"),
        Expected((*map(said, METHODS),), (*map(said, SHIFTS),), SEEDS, said("erm"), "source_val"),
        tuple(records),
        stale,
        Truth(
            fingerprint,
            "accuracy",
            tuple(said(f"class {n}") for n in range(CLASSES)),
            (),
            labels,
            {},
        ),
        lambda record: kept[record.cell_id],
        {
            said("simclr"): Level(
                level="consistent",
                flags=(said("far above"),),
                submitter=said("somebody"),
                paper=said("no address"),
                code="https://example.org/code?a=1&b=2",
                benchbench=said("0.1"),
            )
        },
        (
            Reported(
                method=said("dann"),
                source=said("A paper, table 2"),
                url=said("none"),
                note=said("longer training"),
                values={said("a > b"): 61.5, said("c > d"): 3.25},
            ),
        ),
        {
            f"{n}{METHODS.index(m)}{seed}0".ljust(64, "0"): [4 / (1 + t) + n for t in range(12)]
            for n, m, seed in product((1, 2), METHODS, SEEDS)
        },
        tuple(
            Connected(
                fingerprint=fingerprint,
                shift=said(shift),
                augmentation=said("crop | flip"),
                log_ratios=(0.3 + number, 0.1),
            )
            for number, shift in enumerate(SHIFTS)
        ),
    )


def kinds(tokens):
    for token in tokens:
        if token.type not in ("text", "text_special", "softbreak"):
            yield token.type
        yield from kinds(token.children or [])
