"""What a worker's metrics say, as Prometheus reads them."""

import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Scrape:
    """One answer of a worker."""

    text: str

    @property
    def samples(self) -> list[Sample]:
        families = text_string_to_metric_families(self.text)
        return [sample for family in families for sample in family.samples]

    @property
    def types(self) -> dict[str, str]:
        """Of each metric by name, also of those that have no values now."""
        lines = [line.split() for line in self.text.splitlines() if line.startswith("# TYPE")]
        return {words[2]: words[3] for words in lines}

    @property
    def worker_pid(self) -> int:
        """The process id of the worker that answers; 0: none does, or it is not ready."""
        return int(self.label("bnvit_worker_info", "pid") or 0)

    def has(self, name: str) -> bool:
        return any(sample.name == name for sample in self.samples)

    def value(self, name: str, **labels: str) -> float:
        """The sum of what `name` says with these labels, as PromQL's `sum`."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def label(self, name: str, label: str) -> str:
        """Of the first sample of `name`; empty where there is none."""
        return next((one.labels[label] for one in self.samples if one.name == name), "")


def scrape_of(collector: Collector) -> Scrape:
    """What a collector says now."""
    registry = CollectorRegistry()
    registry.register(collector)
    return Scrape(generate_latest(registry).decode())


def scrape(port: int) -> Scrape:
    """What is served at a port of the loopback; nothing where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return Scrape(answer.read().decode())
    except (OSError, HTTPException):
        return Scrape("")
