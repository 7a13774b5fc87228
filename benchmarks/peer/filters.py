"""The peers' side of `filter_rates`: cleanvision 0.3.7 on a folder of pictures, data-juicer 1.6.1 on their texts."""

import importlib
import json
import resource
import time
from pathlib import Path
from typing import Any


class Side:
    """The records of `folder` as `filter_pool` laid them out: ``images/00000000.png`` and texts.jsonl."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.texts = [json.loads(line)["text"] for line in (self.folder / "texts.jsonl").open()]
        self.about = {"records": len(self.texts)}

    def cleanvision(self, issues: dict[str, Any]) -> dict[str, Any]:
        """Its Imagelab with these issues, in one process."""
        from cleanvision import Imagelab

        started, used = time.perf_counter(), _cpu()
        lab = Imagelab(data_path=str(self.folder / "images"))
        lab.find_issues(issue_types=issues, n_jobs=1, verbose=False)
        took = {"seconds": time.perf_counter() - started, "cpu": _cpu() - used}
        dropped: set[int] = set()
        for issue in issues:
            if issue.endswith("_duplicates"):  # of each set all but the first; near sets leave exact ones out
                for same in lab.info[issue]["sets"]:
                    dropped |= set(sorted(map(_number, same))[1:])
            else:
                column = lab.issues[f"is_{issue}_issue"]
                dropped |= {_number(path) for path in column.index[column.to_numpy(dtype=bool)]}
        return {**took, "dropped": sorted(dropped)}

    def juicer(self, module: str, name: str, settings: dict[str, Any], repeats: int, alone: bool) -> dict[str, Any]:
        """An operator of data-juicer on the texts, `repeats` times in a row as one data set: as its executor runs it
        (a map and a filter of Hugging Face's datasets, one process), or `alone`, its two functions called in a loop."""
        import datasets
        from data_juicer.core.data import NestedDataset
        from data_juicer.utils.constant import Fields

        datasets.disable_caching()
        operator = getattr(importlib.import_module(f"data_juicer.ops.filter.{module}"), name)(num_proc=1, **settings)
        count, texts = len(self.texts), self.texts * repeats
        if alone:
            started, used = time.perf_counter(), _cpu()
            stays: list[bool] = []
            for start in range(0, len(texts), 1000):  # the size of its batches
                some = texts[start : start + 1000]
                batch = {"text": some, Fields.stats: [{} for _ in some]}
                stays += list(operator.process_batched(operator.compute_stats_batched(batch)))
            kept = {i for i in range(count) if stays[i]}
        else:
            data = NestedDataset.from_dict({"text": texts, "number": list(range(len(texts)))})
            started, used = time.perf_counter(), _cpu()
            out = operator.run(data)
            kept = {i for i in out["number"] if i < count}
        return {
            "seconds": (time.perf_counter() - started) / repeats,
            "cpu": (_cpu() - used) / repeats,
            "dropped": sorted(set(range(count)) - kept),
        }


def _number(path: Any) -> int:
    return int(Path(str(path)).stem)


def _cpu() -> float:
    """Of this process and of those that it has waited for: datasets starts one for each map."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
