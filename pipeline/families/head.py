"""What stands on an encoder or decoder: the head an objective asks for. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Objective = Literal["masked-lm", "causal-lm", "classification"]
# The classes of transformers by what they predict.
AUTO_CLASSES: dict[Objective, str] = {
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
}


@dataclass(frozen=True)
class Head:
    """`labels`: the names of the classes of a classification, none for a regression; `words`: what its files call them.
    `sentence`: BERT's two classes for two segments beside the masked-LM head."""

    objective: Objective
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    sentence: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Head":
        """The head that `dataclasses.asdict` took apart."""
        return cls(**{**values, "labels": tuple(values["labels"]), "words": tuple(values["words"])})

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads a model with this head."""
        return AUTO_CLASSES[self.objective]

    @property
    def num_outputs(self) -> int:
        """Logits of a classification: one a class, or one for a regression."""
        return len(self.labels) or 1

    @property
    def problem_type(self) -> str:
        """transformers' word for what a classification is trained for."""
        return "single_label_classification" if self.labels else "regression"


MASKED_LM = Head("masked-lm")
