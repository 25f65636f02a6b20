"""Which fields of a row hold what, as one value: what `mapping` finds and `shapes` reads by."""

from __future__ import annotations

from dataclasses import dataclass

from facviz.corpus.wording import quote_name

_TEXT_NAMES = {
    "messages": "messages", "transcript": "turns", "prompt_completion": "completion", "alpaca": "completion",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """How rows become documents.

    `text_fields` is one field, or chosen and rejected; `prompt_fields` are joined into the first turn of shapes that
    have a prompt. `role_field` says who speaks in a text row; without it that is `text_role`.
    """

    shape: str
    text_fields: tuple[str, ...]
    prompt_fields: tuple[str, ...] = ()
    label_field: str | None = None
    text_role: str = "user"
    is_per_line: bool = False
    role_field: str | None = None
    system_field: str | None = None

    @property
    def required_fields(self) -> tuple[str, ...]:
        """Fields without which no row becomes a document."""
        return (*self.prompt_fields[:1], *self.text_fields, *filter(None, (self.role_field,)))

    def describe(self) -> str:
        """One printable line, such as "shape text: text from `text`, label from `label`"."""
        parts = [f"system from {quote_name(self.system_field)}"] if self.system_field else []
        if self.prompt_fields:
            parts.append("prompt from " + " + ".join(quote_name(f) for f in self.prompt_fields))
        parts.append(self._describe_texts())
        if self.role_field:
            parts.append(f"role from {quote_name(self.role_field)}")
        if self.shape == "chosen_rejected":
            parts.append("labels chosen and rejected")
        else:
            parts.append(f"label from {quote_name(self.label_field)}" if self.label_field else "no label")
        return f"shape {self.shape}: {', '.join(parts)}"

    def _describe_texts(self) -> str:
        if self.is_per_line:
            return "one document per non-empty line"
        if self.shape == "chosen_rejected":
            return "two documents a row from `chosen` and `rejected`"
        return f"{_TEXT_NAMES.get(self.shape, 'text')} from {quote_name(self.text_fields[0])}"
