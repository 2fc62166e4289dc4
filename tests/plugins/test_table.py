"""A csv file of images, and everything that can be wrong with one."""

import csv

import pytest
import torch
from PIL import Image
from tiny import Text

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput
from benchbench.data.inspection import lonely
from benchbench.data.preparation import prepare
from benchbench.store.artifacts import Store
from benchbench_files import table

ROWS = Text("""path,label,domain,split,group
a/1.png,cat,clinic,train,p1
a/2.png,dog,clinic,val,p2
a/3.png,cat,street,test,
b/4.png,,street,train,p3
""")


@pytest.fixture
def plant(tmp_path):
    """Writes a table beside four images, and returns its folder."""

    def put(text=ROWS, name="table.csv", encoding="utf-8"):
        for number, folder in enumerate("aaab", start=1):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / folder / f"{number}.png")
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path

    return put


def test_columns_become_what_they_say(plant):
    data = table(plant())
    assert data.inputs.paths == ("a/1.png", "a/2.png", "a/3.png", "b/4.png")
    assert (data.class_names, data.domain_names) == (("cat", "dog"), ("clinic", "street"))
    assert data.labels.tolist() == [0, 1, 0, UNKNOWN]
    assert data.domains.tolist() == [0, 0, 1, 1]
    assert data.split.tolist() == [TRAIN, VAL, TEST, TRAIN]
    assert data.units.tolist() == [0, 1, -1, 2]
    assert (data.groups, data.metric) == (None, "accuracy")


def test_without_split_and_group_and_with_more_columns(plant):
    text = ' domain ,note,path,label\nclinic,x,a/1.png,cat\nstreet,"a, b",a/2.png, dog \n'
    data = table(plant(text, encoding="utf-8-sig"))
    assert (data.split, data.units) == (None, None)
    assert (data.class_names, data.domain_names) == (("cat", "dog"), ("clinic", "street"))


def test_groups_are_told_apart_where_the_worst_counts(plant):
    data = table(plant(), metric="worst_group")
    assert data.group_names == ("p1", "p2", "p3")
    assert torch.equal(data.groups, data.units)
    with pytest.raises(BadInput, match="has no groups, which metric='worst_group' needs"):
        table(plant("path,label,domain\na/1.png,cat,clinic\n"), metric="worst_group")


def test_labels_may_be_numbers(plant):
    text = "path,label,domain\na/1.png,1.5,x\na/2.png,,x\na/3.png,-2e3,y\n"
    data = table(plant(text), numbers=True)
    assert data.labels[[0, 2]].tolist() == [1.5, -2000] and data.labels[1].isnan()
    assert (data.class_names, data.metric) == ((), "pearson")
    for wrong in ("many", "inf"):
        with pytest.raises(BadInput, match=f"line 2: label '{wrong}' is no number"):
            table(plant(text.replace("1.5", wrong)), numbers=True)


TEXTS = Text("""text,label,domain,split
"Good, very good",pro,mail,train
"Bad.",con,mail,val
"Nothing new here",,chat,train
"good unseen",con,chat,test
""")


def test_a_text_of_two_lines_does_not_shift_what_is_told_of_the_next(plant):
    with pytest.raises(BadInput, match="line 5: split is 'later', not train, val or test"):
        table(plant('text,label,domain,split\n"two\nlines",a,x,train\n\nthird,b,y,later\n'))


def test_texts_stand_in_the_table(plant, tmp_path):
    data = table(plant(TEXTS), length=3)
    assert data.inputs.shape == (4, 3) and data.class_names == ("con", "pro")
    words = [[data.vocabulary[t] for t in row if t >= 0] for row in data.inputs.tolist()]
    assert words == [["good", ",", "very"], ["[UNK]", "[UNK]"], ["nothing", "new", "here"],
                     ["good", "[UNK]"]]  # fmt: skip
    assert data.labels.tolist() == [1, 0, UNKNOWN, 0]
    drawn = table(plant(TEXTS.replace(",split", ",note")))
    assert drawn.split is None and "bad" in drawn.vocabulary
    with pytest.raises(BadInput, match=r"there is no tokenizer .*mine.json"):
        table(plant(TEXTS), tokenizer="mine.json")


def test_images_are_found_from_the_folder_of_the_table(plant, tmp_path):
    plant()
    (tmp_path / "b" / "mine.csv").write_text("path,label,domain\n4.png,cat,clinic\n")
    assert table(tmp_path, file="b/mine.csv").inputs.root == (tmp_path / "b").resolve()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,class,domain\na/1.png,cat,x\n", "no column 'label'; it has path, class, domain"),
        ("", "has no column 'label'; it has nothing"),
        ("image,label,domain\na,b,c\n", "no column 'path' or 'text'; it has image, label, domain"),
        ("path,text,label,domain\na,b,c,d\n", "has both 'path' and 'text'; it has path, text, lab"),
        ("path,label,domain\n", "has no rows"),
        (ROWS.replace("val,p2", "valid,p2"), "line 3: split is 'valid', not train, val or test"),
        (ROWS.replace("val,p2", ",p2"), "line 3: split is '', not train, val or test"),
        (ROWS + "a/1.png,cat,street,test,\n", "line 6: path 'a/1.png' is in line 2 too"),
        (ROWS + "../9.png,cat,street,test,\n", r"line 6: path '\.\./9.png' lies outside"),
        (ROWS + "/etc/passwd,cat,street,test,\n", "line 6: path '/etc/passwd' lies outside"),
        (ROWS + "a/9.png,cat,street,test,\n", "line 6: there is no image .*9.png"),
        (ROWS + "a/9.png,cat\n", "line 6 has fewer fields than the first line, 2 and not 5"),
        (ROWS + ",cat,street,test,\n", "line 6: path is empty"),
        (ROWS.replace("cat,clinic", "cat,"), "line 2: domain is empty"),
    ],
)
def test_a_fault_is_one_sentence_with_its_line(plant, text, sentence):
    with pytest.raises(BadInput, match=sentence):
        table(plant(text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "text,label,domain\nwell, fine,pos,a\n",
            "line 2 has more fields than the first line, 4 and",
        ),
        ("text,label,domain,label\ngood,x,a,p\n", "has 2 columns 'label'; keep one"),
        ("text,label,domain, label \ngood,x,a,p\n", "has 2 columns 'label'; keep one"),
        (
            "text,label,domain,Split\ngood,x,a,test\n",
            "the column 'Split' is not read; call it 'spl",
        ),
        ("text,label,domain,groups\ngood,x,a,p\n", "the column 'groups' is not read; call it 'gro"),
        ('text,label,domain\n"a,x,a\nb,y,b\nc,x,a\n', "line 2, a quotation mark is not closed"),
        ('text,label,domain\na,x,a\n"b,y,b\n"c",x,a\n', "line 3, ',' expected after '\"'"),
        ('text,label,domain\na,x,"b\nc,x",a\n', "line 2 has more fields"),
        (
            'text,label,domain\na,x,"b\nc,x"\n',
            r"line 2: domain is 'b\\nc,x', which holds a line break",
        ),
        ('text,label,domain\na,"x\nb",a\n', r"line 2: label is 'x\\nb', which holds a line break"),
        ('path,label,domain\n"a\nb",x,a\n', r"line 2: path is 'a\\nb', which holds a line break"),
        ("path,label,domain\na\0b,x,a\n", r"line 2: path is 'a\\x00b', which holds a line break"),
        ("text,label,domain\na,x,a > b\n", "line 2: the domain 'a > b' could not be named in a sh"),
        ("text,label,domain\na,x,a\nb,none,a\n", "line 3: label is 'none', which may be a class"),
    ],
)
def test_rows_that_are_not_as_the_header_says_are_refused(plant, text, sentence):
    with pytest.raises(BadInput, match=sentence):
        table(plant(text))


@pytest.mark.parametrize("name", ["nan", "NaN", "unlabeled", "Unlabelled", "  "])
def test_every_spelling_of_unlabelled_is_unknown(plant, name):
    data = table(plant(f"path,label,domain\na/1.png,cat,x\na/2.png,{name},y\n"))
    assert data.class_names == ("cat",) and data.labels.tolist() == [0, UNKNOWN]


def test_a_long_text_is_read(plant):
    text = "w " * 70_000
    data = table(plant(f"text,label,domain\n{text},x,a\ngood,y,b\n"), length=200_000)
    assert data.inputs.shape == (2, 70_000)
    assert csv.field_size_limit() == 131_072  # of the whole process


def test_one_image_is_one_path_however_it_is_written(plant, tmp_path):
    """Absolute, with . and .. in it, by a link: found, listed as `folder` does, and never twice."""
    plant()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "way").symlink_to(tmp_path)
    ways = ["a/2.png", "./a/2.png", "b/../a/2.png", "a//2.png", f"{tmp_path}/a/2.png", "link/2.png"]
    for way in ways:
        inputs = table(plant(f"path,label,domain\na/1.png,cat,x\n{way},dog,y\n")).inputs
        assert inputs.paths == ("a/1.png", "link/2.png" if way == "link/2.png" else "a/2.png")
        for again in ways:
            text = f"path,label,domain\na/1.png,cat,x\n{way},dog,y\n{again},dog,y\n"
            with pytest.raises(BadInput, match=r"line 4: path .* is in line 3 too|are one file"):
                table(plant(text))
    text = f"path,label,domain\n{tmp_path}/way/a/2.png,dog,y\n"
    plant(text)
    assert table(tmp_path / "way").inputs.paths == ("a/2.png",)


def test_links_are_followed_as_folder_follows_them(plant, tmp_path):
    """One that leads out of the folder is told; a path that does is refused."""
    (tmp_path / "out").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "out" / "9.png")
    plant()
    (tmp_path / "a" / "far").symlink_to(tmp_path / "out")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    head = "path,label,domain\n1.png,cat,x\n"
    (tmp_path / "a" / "mine.csv").write_text(head + "far/9.png,dog,y\n")
    with pytest.warns(match="links lead out of .*a to 1 of its 2 images, such as far/9.png"):
        assert table(tmp_path, file="a/mine.csv").inputs.paths == ("1.png", "far/9.png")
    for path in ("../out/9.png", f"{tmp_path}/out/9.png", "far/../../out/9.png"):
        (tmp_path / "a" / "mine.csv").write_text(head + f"{path},dog,y\n")
        with pytest.raises(BadInput, match=r"line 3: path .* lies outside .*a; put the csv file"):
            table(tmp_path, file="a/mine.csv")
    (tmp_path / "a" / "mine.csv").write_text(head + "loop.png,dog,y\n")
    with pytest.raises(BadInput, match=r"line 3: there is no image .*loop.png"):
        table(tmp_path, file="a/mine.csv")


def test_a_table_that_is_not_there_or_not_text(plant, tmp_path):
    plant()
    with pytest.raises(BadInput, match="no file .*other.csv: .* holds a, b, table.csv"):
        table(tmp_path, file="other.csv")
    with pytest.raises(BadInput, match="cannot be read as csv: byte 0 is not UTF-8; save it as UT"):
        table(tmp_path, file="a/1.png")
    with pytest.raises(BadInput, match="a cannot be read as csv: Is a directory"):
        table(tmp_path, file="a")


def test_a_class_of_one_domain_is_told_of(plant, tmp_path):
    pack, _ = prepare(table(plant(), size=4), Store(tmp_path / "s"), 0, lambda done, total: None)
    assert lonely(pack) == ["class 'dog' has rows in domain 'clinic' alone"]
