"""Class maps: which output of the net belongs to which class of the images."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import DataError
from .images import Images
from .sources import Classes


class ClassMap(dict[str, int]):
    """The number of each class name.

    `outputs` is the number of names in a list without numbers, which names all outputs in order; None if the file
    gives the numbers, and so may name a part of the outputs.
    """

    outputs: int | None = None


def read_class_map(path: str | Path) -> ClassMap:
    """Read timm's class map: one class name per line, numbered from 0, or `name index` on every line.

    Raises:
        DataError: KD404 if the file cannot be read, is empty, or gives a name two numbers.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("KD404", f"class map {path}: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    pairs = [line.rsplit(maxsplit=1) for line in lines if line]
    numbered = bool(pairs) and all(len(pair) == 2 and pair[1].isdecimal() for pair in pairs)
    rows = [(name, int(index)) for name, index in pairs] if numbered else [(line, i) for i, line in enumerate(lines)]
    classes = ClassMap()
    classes.outputs = None if numbered else len(lines)
    for name, index in rows:
        if name and classes.setdefault(name, index) != index:
            raise DataError("KD404", f"class map {path}: {name!r} has two numbers, {classes[name]} and {index}")
    if not classes:
        raise DataError("KD404", f"class map {path}: the file is empty; write one class name per line")
    return classes


def check_classes(images: Images, outputs: int) -> None:
    """Check that the labels can be those of a net with so many outputs.

    Folders are numbered in sorted order, which is the numbering of the net only if it has as many outputs.

    Raises:
        DataError: KD402 if the numbers of the classes cannot be those of the outputs.
    """
    classes: Classes = images.classes
    if not classes:
        return
    if images.mapped:
        named = classes.outputs if isinstance(classes, ClassMap) else None
        if named is not None and named < outputs:
            way_out = "name every output, or write `name number` on every line"
            raise DataError("KD402", f"the class map names {named} classes, the net has {outputs} outputs; {way_out}")
        name, highest = max(classes.items(), key=lambda item: item[1])
        if highest >= outputs:
            raise DataError(
                "KD402", f"the class map gives {name!r} the number {highest}, but the net has {outputs} outputs"
            )
    elif len(classes) != outputs:
        way_out = (
            "pass --class-map FILE, one class name per line in the order of the outputs, or a folder without classes"
        )
        raise DataError("KD402", f"the images have {len(classes)} classes, the net has {outputs} outputs; {way_out}")
