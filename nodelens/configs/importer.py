"""Configurations of the reference system, in its unified dialect, as configurations of ours.

What the dialect is was read from its documentation: sections `experiment`, `model`, `dataset`,
`calibration`, `metrics` (each with `enabled`), `supernode`, `pruning` and more. What is not known
here is listed, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from nodelens.configs.config_loader import parse_config, read_text
from nodelens.configs.document import Document, Path, dotted, write_yaml
from nodelens.configs.import_pruning import pruning_key, reason_left, strategies_of
from nodelens.configs.import_sections import NOT_ENABLED, is_enabled, section_key, split_tasks
from nodelens.configs.schema import EXPERIMENT_ALIASES
from nodelens.errors import ConfigError

__all__ = ["Imported", "Unmapped", "import_config", "import_text"]

_LANGUAGE = "llm_alignment"
_MODELS = {"mlp": "mlp", "small_cnn": "small_cnn", "cnn2p2": "small_cnn"}
_SETS = {"digits": "digits", "mnist": "mnist"}
_HUB_SETS = "others are named as the hub does, with options: see configs/vision_prune"
_RENAMED = {
    "experiment.name": "experiment.name",
    "experiment.seed": "experiment.seed",
    "experiment.device": "experiment.device",
    "experiment.output_dir": "output.directory",
    "model.checkpoint": "model.checkpoint",
    "calibration.num_samples": "calibration.rows",
    "dataset.batch_size": "dataset.batch_size",
    "training.epochs": "training.epochs",
    "training.batch_size": "training.batch_size",
    "training.learning_rate": "training.learning_rate",
    "training.lr": "training.learning_rate",
    "training.weight_decay": "training.weight_decay",
}
_FOR_LANGUAGE = {
    "model.dtype": "model.options.dtype",
    "model.torch_dtype": "model.options.dtype",
    "model.device_map": "model.options.device_map",
    "calibration.max_length": "dataset.block_size",
    "calibration.batch_size": "dataset.batch_size",
}
_METRICS: dict[str, tuple[str, ...]] = {
    "redundancy": ("average_redundancy",),
    "synergy": ("synergy_gaussian_mmi",),
    "magnitude": ("weight_magnitude",),
    "scar": ("scar_activation_power", "scar_taylor", "scar_curvature", "scar_loss_proxy"),
}
"""Names of the dialect that are not those of the lenses."""
_WHY = {
    "tracked_layers": "give layers= to the lenses that are to score them",
    "metrics.scar": "samples and lengths are those of the calibration section",
}
_UNKNOWN = "has no equal here"


@dataclass(frozen=True)
class Unmapped:
    """A value that was left out: its key and line in the file, and why."""

    key: str
    line: int | None
    value: Any
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.key}: {str(self.value)[:60]}: {self.why}"


@dataclass
class Imported:
    """Our configuration as plain `data`, what became of each key, and what was left out."""

    source: str
    data: dict[str, Any]
    mapped: list[tuple[str, str]] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        left = [vars(entry) for entry in self.unmapped]
        return {"config": self.data, "mapped": dict(self.mapped), "unmapped": left}

    def report(self) -> list[str]:
        """Return a line for what was taken over, then one for each key that was left out."""
        head = f"{self.source}: {len(self.mapped)} keys taken over, {len(self.unmapped)} left out"
        return [head, *(f"  {entry}" for entry in self.unmapped)]


def import_config(path: str | FilePath) -> Imported:
    """Return the file of the unified dialect at `path` as a configuration of ours.

    Raises ConfigError when what can be taken over makes no configuration: with what is missing.
    """
    return import_text(read_text(path), source=str(path))


def import_text(text: str, source: str = "configuration") -> Imported:
    """Return `text`, in the unified dialect, as a configuration of ours; errors name `source`."""
    document = Document.from_text(text, source)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{source}: expected sections such as experiment, model and metrics")
    found = _Importer(document).run()
    try:
        parse_config(write_yaml(found.data), source="imported")
    except ConfigError as error:
        left = "; ".join(str(entry) for entry in found.unmapped[:5])
        raise ConfigError(
            f"{source}: what can be taken over makes no configuration: {error}"
            + (f" (left out: {left})" if left else "")
        ) from error
    return found


class _Importer:
    """Reads a document once, leaf by leaf."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.found = Imported(str(document.source), {})
        family = self._value("experiment.type") or "general_alignment"
        self.family = EXPERIMENT_ALIASES.get(str(family), str(family))
        self.renamed = dict(_RENAMED)
        if self.family == _LANGUAGE:
            self.renamed |= _FOR_LANGUAGE

    def run(self) -> Imported:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", FilePath(self.found.source).stem).lstrip("._-")
        data = self.found.data
        data["experiment"] = {"name": stem or "imported", "type": self.family}
        for path, value in _leaves(self.document.data):
            self._take(path, value)
        if self.family == "cluster_analysis":
            # The lens that `synergy` of the dialect becomes.
            data.setdefault("clustering", {}).setdefault("synergy", _METRICS["synergy"][0])
        data.setdefault("output", {"directory": f"outputs/{data['experiment']['name']}"})
        return self.found

    def _take(self, path: Path, value: Any) -> None:
        key = dotted(path)
        special = {"experiment.type": self._type, "model.name": self._model}
        special |= {"model.model_id": self._model, "dataset.name": self._dataset}
        if self.family == _LANGUAGE:
            special["evaluation.benchmark_tasks"] = self._tasks
        if path[0] == "metrics":
            self._metric(path, value)
        elif path[0] == "pruning":
            self._pruning(path, value)
        elif key in special:
            special[key](path, value)
        elif key in self.renamed:
            self._put(path, self.renamed[key], value)
        elif not is_enabled(self.document.data, key):
            self._leave(path, value, NOT_ENABLED)
        elif (ours := section_key(key, value, self.family)) is not None:
            self._section(path, *ours)
        else:
            why = _WHY.get(str(path[0])) or _WHY.get(str(path[-1]), _UNKNOWN)
            self._leave(path, value, why)

    def _type(self, path: Path, value: Any) -> None:
        if self.family in ("general_alignment", "cluster_analysis", _LANGUAGE):
            self.found.mapped.append((dotted(path), "experiment.type"))
            return
        self._leave(path, value, "no such family here yet; taken as general_alignment")
        self.found.data["experiment"]["type"] = self.family = "general_alignment"

    def _model(self, path: Path, value: Any) -> None:
        if path[-1] == "model_id":
            self._put(path, "model.name", value)
        elif value in _MODELS:
            self._put(path, "model.name", _MODELS[value])
        elif not self._value("model.model_id"):
            self._leave(path, value, f"expected one of {', '.join(_MODELS)}, or a model_id")

    def _dataset(self, path: Path, value: Any) -> None:
        if value in _SETS or (self.family == _LANGUAGE and FilePath(str(value)).is_file()):
            self._put(path, "dataset.name", _SETS.get(value, value))
        elif self.family == _LANGUAGE:
            self._leave(path, value, "expected a text file; `encyclopaedia` is taken instead")
            self.found.data.setdefault("dataset", {})["name"] = "encyclopaedia"
        else:
            self._leave(path, value, f"expected one of {', '.join(_SETS)}; {_HUB_SETS}")

    def _metric(self, path: Path, value: Any) -> None:
        """Take over `metrics.<name>.enabled`, and the other keys as options of the lens."""
        name, option = str(path[1]) if len(path) > 1 else "", path[2:]
        section = self.document.data["metrics"]
        if not isinstance(section, Mapping) or not isinstance(section.get(name), Mapping):
            self._leave(path, value, "expected metrics.<name>.enabled")
        elif not section[name].get("enabled", True):
            self._leave(path, value, "not enabled")
        elif option == ("enabled",):
            for lens in _METRICS.get(name, (name,)):
                self._lens(lens)
            self.found.mapped.append((dotted(path), "lenses"))
        elif name in _METRICS:
            why = _WHY.get(f"metrics.{name}", f"options of {name!r} are not those of the lens")
            self._leave(path, value, why)
        else:
            self._lens(name)[dotted(option)] = value
            self.found.mapped.append((dotted(path), f"lenses: {name}.{dotted(option)}"))

    def _pruning(self, path: Path, value: Any) -> None:
        """Take over the strategies that there are here, and the other keys where there is one."""
        section, key = self.document.data["pruning"], dotted(path[1:])
        strategies, left = strategies_of(section, language=self.family == _LANGUAGE)
        if not strategies or not section.get("enabled", True):
            why = "not enabled" if strategies else "the section names no strategy that is here"
            self._leave(path, value, why)
        elif key in ("algorithms", "scoring_methods"):
            self._put(path, "pruning.strategies", strategies)
            for where, name, why in left:
                if where == key:
                    self._leave(path, name, why)
        elif (ours := pruning_key(key, value, section)) is not None:
            self._put(path, *ours)
        elif key == "fine_tune.enabled" and value:
            self.found.mapped.append((dotted(path), "pruning.fine_tuning"))
            self.found.data.setdefault("pruning", {}).setdefault("fine_tuning", {})
        else:
            self._leave(path, value, reason_left(key))

    def _section(self, path: Path, ours: str, value: Any) -> None:
        """Take over a key of a further section, with the lens that its score is of."""
        if "." not in ours:
            self.found.data.setdefault(ours, {})
            self.found.mapped.append((dotted(path), ours))
            return
        if ours == "supernode.score":
            self._lens(value)
        self._put(path, ours, value)

    def _tasks(self, path: Path, value: Any) -> None:
        asked = is_enabled(self.document.data, dotted(path))
        if not asked or self._value("evaluation.benchmarks_enabled") is False:
            self._leave(path, value, NOT_ENABLED)
            return
        names, left = split_tasks(value)
        self._put(path, "evaluation.tasks", names)
        for task in left:
            self._leave(path, task, "tasks are asked without examples")

    def _lens(self, name: str) -> dict[str, Any]:
        lenses: list[dict[str, Any]] = self.found.data.setdefault("lenses", [])
        for entry in lenses:
            if entry["name"] == name:
                return entry
        lenses.append({"name": name})
        return lenses[-1]

    def _put(self, path: Path, ours: str, value: Any) -> None:
        *sections, last = ours.split(".")
        target = self.found.data
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
        self.found.mapped.append((dotted(path), ours))

    def _leave(self, path: Path, value: Any, why: str) -> None:
        line = self.document.place(path).line
        self.found.unmapped.append(Unmapped(dotted(path), line, value, why))

    def _value(self, key: str) -> Any:
        value: Any = self.document.data
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def _leaves(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that is no section, with its path; lists count as one value."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    elif path:
        yield path, data
