"""The inline templates whose text a reader of the sentence would miss, and what they say; all others say nothing.

Knows nothing of brackets, links or pages: it is given a template's name and its arguments as text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[\w -]{1,40}")
_NUMBER = re.compile(r"[-+\u2212]?[\d.,/]+")
_MONTHS = ["January", "February", "March", "April", "May", "June"]
_MONTHS += ["July", "August", "September", "October", "November", "December"]
_RANGES = {"-": "\u2013", "\u2013": "\u2013", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and "}
_RANGES |= {"or": " or ", "+/-": " \u00b1 ", "\u00b1": " \u00b1 "} | dict.fromkeys(("by", "x", "*", "\u00d7"), " by ")
_UNITS = {"c": "\u00b0C", "f": "\u00b0F", "sqmi": "sq mi", "sqft": "sq ft", "cuft": "cu ft", "cumi": "cu mi"}
_UNITS |= {"oilbbl": "barrels", "moilbbl": "million barrels", "koilbbl": "thousand barrels"}


@dataclass(frozen=True)
class Arguments:
    """The arguments of one template: those without a name, in order, and the others by name in lower case."""

    listed: list[str]
    named: dict[str, str]

    def __getitem__(self, index: int) -> str:
        """The index-th unnamed argument, "" where there is none."""
        return self.listed[index] if -len(self.listed) <= index < len(self.listed) else ""


def split_arguments(parts: Sequence[str]) -> Arguments:
    """Arguments from the parts of a template's body behind its name; `1=text` counts as unnamed."""
    listed: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not _NAME.fullmatch(name):
            listed.append(part.strip())
        elif name == str(len(listed) + 1):
            listed.append(value.strip())
        else:
            named[name] = value.strip()
    return Arguments(listed, named)


def speaks(name: str) -> Callable[[Arguments], str] | None:
    """What turns the arguments of template `name` (as written) into text, or None where it is to be dropped."""
    name = " ".join(name.replace("_", " ").lower().split())
    return _TEMPLATES.get(name) or next((say for prefix, say in _PREFIXES.items() if name.startswith(prefix)), None)


def _first(args: Arguments) -> str:
    return args[0]


def _second(args: Arguments) -> str:
    return args[1]


def _last(args: Arguments) -> str:
    return args[-1]


def _joined(args: Arguments) -> str:
    return "".join(args.listed)


def _listed(args: Arguments) -> str:
    return ", ".join(filter(None, args.listed))


def _block(args: Arguments) -> str:
    return f"\n\n{args[0] or args.named.get('text') or args.named.get('quote') or args.named.get('content') or ''}\n\n"


def _literal(text: str) -> Callable[[Arguments], str]:
    return lambda args: text


def _before(text: str) -> Callable[[Arguments], str]:
    return lambda args: text + args[0]


def _convert(args: Arguments) -> str:
    """`5|km|mi` -> "5 km", `5|-|10|km` -> "5-10 km" with an en dash, `5|ft|3|in` -> "5 ft 3 in"."""
    between = _RANGES.get(args[1])
    if between is not None:
        return f"{args[0]}{between}{args[2]} {_unit(args[3])}".rstrip()
    size = f"{args[0]} {_unit(args[1])}".rstrip()
    if args[3] in ("in", "oz", "lb", "ft", "yd") and _NUMBER.fullmatch(args[2]):
        return f"{size} {args[2]} {args[3]}"
    return size


def _unit(unit: str) -> str:
    return _UNITS.get(unit.lower(), unit)


def _value(args: Arguments) -> str:
    """`1.5|e=6|ul=m/s` -> "1.5x10^6 m/s" with a multiplication sign."""
    power = f"\u00d710^{args.named['e']}" if args.named.get("e") else ""
    unit = args.named.get("u") or args.named.get("ul") or ""
    return f"{args[0]}{power} {unit}".rstrip()


def _fraction(args: Arguments) -> str:
    if len(args.listed) >= 3:
        return f"{args[0]} {args[1]}/{args[2]}"
    return "/".join(args.listed) if len(args.listed) == 2 else f"1/{args[0]}"


def _date(args: Arguments) -> str:
    """`2015|3|31` -> "31 March 2015"."""
    month = _MONTHS[int(args[1]) - 1] if re.fullmatch("0?[1-9]|1[0-2]", args[1]) else args[1]
    return " ".join(filter(None, (args[2], month, args[0])))


def _as_of(args: Arguments) -> str:
    """`2015|3|lc=y` -> "as of March 2015"."""
    if args.named.get("alt"):
        return args.named["alt"]
    opening = "Since" if args.named.get("since") else "As of"
    return f"{opening.lower() if args.named.get('lc') else opening} {_date(args)}"


def _nihongo(args: Arguments) -> str:
    """English, characters, reading -> "English (characters, reading)"."""
    inside = ", ".join(filter(None, args.listed[1:3]))
    return f"{args[0]} ({inside})" if args[0] and inside else args[0] or inside


def _ship(args: Arguments) -> str:
    return f"{args[0]} {args[1]}".strip()


def _table() -> dict[str, Callable[[Arguments], str]]:
    says: list[tuple[Callable[[Arguments], str], str]] = [
        (
            _first,
            "nowrap|nobr|nobreak|small|smaller|big|larger|sc|smallcaps|abbr|tooltip|nobold|noitalic|em|strong|sup",
        ),
        (_first, "sub|u|underline|kbd|keypress|mono|code|samp|tt|vanchor|visible anchor|ill|interlanguage link|sic"),
        (
            _first,
            "not a typo|as written|proper name|unicode|greek|polytonic|hebrew|math|mvar|var|angbr|formatnum|num|nts",
        ),
        (_first, "flag|flagcountry|flagu|plainlist|flatlist"),
        (_second, "lang|rtl-lang|color"),
        (_last, "transl|transliteration|resize"),
        (_joined, "chem|chem2|gaps|linktext"),
        (_listed, "hlist|ubl|vunblist|unbulleted list"),
        (_block, "quote|blockquote|cquote|quotation|bq|poemquote|poem|columns-list"),
        (_convert, "convert|cvt"),
        (_value, "val"),
        (_fraction, "frac|sfrac|fraction"),
        (_as_of, "as of|asof"),
        (_date, "birth date|birth date and age|death date|death date and age|start date|end date|dts"),
        (_nihongo, "nihongo|nihongo2|nihongo3"),
        (_ship, "ship"),
        (_before("c. "), "circa|c."),
        (_before("fl. "), "floruit|fl."),
        (_before("US$"), "us$|usd"),
        (_before("\u00a3"), "gbp|\u00a3"),
        (_before("\u20ac"), "eur|\u20ac"),
        (_before("\u221a"), "sqrt"),
        (_before("\u00d710^"), "e"),
        (_literal(" \u2013 "), "spaced ndash|snd|spnd|sndash|ndash|\u2013"),
        (_literal("\u2014"), "mdash|mdashb|em dash|\u2014"),
        (_literal(" \u00b7 "), "\u00b7"),
        (_literal(" \u2022 "), "bull|\u2022"),
        (_literal(" "), "nbsp|space|spaces|thin space|thinsp|hair space"),
        (_literal("'s"), "'s|\u2019s"),
        (_literal("'"), "'"),
        (_literal("'\""), "'\""),
        (_literal("\"'"), "\"'"),
        (_literal("="), "="),
        (_literal("\u03c0"), "pi"),
        (_literal("\u00b1"), "+-|\u00b1"),
        (_literal("\u00d7"), "times"),
        (_literal("\u2212"), "minus"),
        (_literal("\u02bb"), "okina"),
    ]
    table = {name: say for say, names in says for name in names.split("|")}
    return table | {name: _before(f"{name.upper()} ") for name in ("uss", "hms", "ss", "rms", "hmas", "hmcs")}


_TEMPLATES = _table()
_PREFIXES: dict[str, Callable[[Arguments], str]] = {"lang-": _first, "script/": _last}
