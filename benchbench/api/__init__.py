"""What a Python program calls; the command line parses, calls one of these, and prints.

    import benchbench

    results = benchbench.run("quickstart")
    results.compare("simclr", "erm")

Everything heavy is imported when it is called for.
"""

from benchbench.api.boards import board, is_board, load_board, publish
from benchbench.api.data import (
    DatasetFacts,
    Datasets,
    Downloaded,
    Prepared,
    Sheet,
    data_doctor,
    data_download,
    data_list,
    data_prepare,
    data_show,
    data_verify,
)
from benchbench.api.diagnosis import (
    advise,
    connectivity,
    diagnose_features,
    judge_predictors,
    search,
    theory,
)
from benchbench.api.models import ExportedModel, export_model, load_encoder, load_model, predict
from benchbench.api.plugins import (
    Offers,
    System,
    catalog,
    check,
    new_plugin,
    offers,
    plugins_told,
    shipped_suites,
    sysinfo,
)
from benchbench.api.record_export import RecordsExported, export_records
from benchbench.api.reports import (
    AdviceReport,
    ConnectivityReport,
    FeatureReport,
    FigureReport,
    PredictorReport,
    SearchReport,
)
from benchbench.api.runs import Preview, Status, evaluate, follows, preview, run, status
from benchbench.api.speed import bench
from benchbench.api.stores import (
    Cleaned,
    Inspection,
    StoreExported,
    StoreImported,
    StoreSizes,
    store_clean,
    store_export,
    store_import,
    store_list,
    store_verify,
)
from benchbench.api.submissions import Submitted, Verified, submit, verify

__all__ = [
    "AdviceReport",
    "Cleaned",
    "ConnectivityReport",
    "DatasetFacts",
    "Datasets",
    "Downloaded",
    "ExportedModel",
    "FeatureReport",
    "FigureReport",
    "Inspection",
    "Offers",
    "PredictorReport",
    "Prepared",
    "Preview",
    "RecordsExported",
    "SearchReport",
    "Sheet",
    "Status",
    "StoreExported",
    "StoreImported",
    "StoreSizes",
    "Submitted",
    "System",
    "Verified",
    "advise",
    "bench",
    "board",
    "catalog",
    "check",
    "connectivity",
    "data_doctor",
    "data_download",
    "data_list",
    "data_prepare",
    "data_show",
    "data_verify",
    "diagnose_features",
    "evaluate",
    "export_model",
    "export_records",
    "follows",
    "is_board",
    "judge_predictors",
    "load_board",
    "load_encoder",
    "load_model",
    "new_plugin",
    "offers",
    "plugins_told",
    "predict",
    "preview",
    "publish",
    "run",
    "search",
    "shipped_suites",
    "status",
    "store_clean",
    "store_export",
    "store_import",
    "store_list",
    "store_verify",
    "submit",
    "sysinfo",
    "theory",
    "verify",
]
