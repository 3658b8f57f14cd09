"""Building HTML and SVG from text that nobody vouches for: what is not markup already is escaped."""

import html

_EMPTY_ELEMENTS = frozenset({"img", "meta", "br"})


class Markup(str):
    """Text that is HTML already, and goes into a page as it is."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Gives an element.

    Args:
        name: its tag.
        *children: its content one after the other; what is not :class:`Markup` is converted to text and escaped.
        **attributes: a trailing ``_`` is dropped and each other ``_`` becomes ``-``, so that ``class_`` and
            ``aria_label`` can be given. ``None`` leaves an attribute out, ``True`` gives one without a value.

    Example:
        >>> tag("td", "a < b", class_="name", hidden=True, title=None)
        '<td class="name" hidden>a &lt; b</td>'
    """
    written = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY_ELEMENTS:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Gives the children one after the other, escaped where they are not :class:`Markup`.

    Example:
        >>> join(tag("b", "R"), "&", "D")
        '<b>R</b>&amp;D'
    """
    return Markup("".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children))


def _attribute_name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")
