"""Results that a notebook shows as a page."""

from importlib import import_module


class InNotebooks:
    """A result of a verb. In a notebook it is shown as the page that `--html` writes."""

    def _repr_html_(self) -> str:
        # By name, since the page is made in a room above: only a notebook calls this.
        text: str = import_module("kdna_convert.api.result_pages").page_of_result(self).in_notebook()
        return text
