"""Every failure facviz raises on purpose. The message is one sentence that says what to do next.

FacvizError
├── InputError          what the user gave cannot be used (file, field, option, TOML)
├── BackboneError       the language model cannot be found, fetched, converted or run
├── SaeError            an SAE cannot be loaded, does not fit, or a shape is wrong
├── WorkspaceError      the workspace is locked, newer than this program, damaged or full
├── CoverageError       a coverage question has no answer (empty anchor, no relevant features)
│   └── SaturatedError  nearly nothing is missing at this threshold, so synthesis would prove nothing
└── LLMError            a provider cannot be reached or refuses the key
    ├── BudgetError     the next call might cost more than the user allowed
    └── SpendLimitError the provider's own limit of the account is reached
"""


class FacvizError(Exception):
    """Base of all expected failures; the command line prints it as one sentence and exits 2."""


class InputError(FacvizError):
    """A file, field, option or configuration value given by the user cannot be used."""


class BackboneError(FacvizError):
    """The language model cannot be found, fetched, converted or run."""


class SaeError(FacvizError):
    """A sparse autoencoder cannot be loaded or does not fit what it is applied to."""


class WorkspaceError(FacvizError):
    """The workspace is locked, damaged, full, or written by a newer facviz."""


class CoverageError(FacvizError):
    """A coverage question has no answer, for instance an empty denominator."""


class SaturatedError(CoverageError):
    """Nearly every relevant feature is already covered at this threshold (design: saturation)."""


class LLMError(FacvizError):
    """A provider cannot be reached, refuses the key, or has hit a spending limit."""


class BudgetError(LLMError):
    """The next call might exceed the budget; `needed_usd` would be enough to finish, worst case."""

    def __init__(self, message: str, *, spent_usd: float = 0.0, needed_usd: float = 0.0) -> None:
        super().__init__(message)
        self.spent_usd = spent_usd
        self.needed_usd = needed_usd


class SpendLimitError(LLMError):
    """The provider lets this account spend no more for now; nothing more can be asked until a person raises it."""
