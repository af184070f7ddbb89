"""What inline templates say: functions from the arguments of one to the text a reader sees.

Knows nothing of the names of templates, of brackets, links or pages.
"""

import re
from collections.abc import Callable
from itertools import zip_longest

from data_prep.raw.wikiarguments import Arguments

Say = Callable[[Arguments], str]

# An apostrophe that no run of apostrophes, which is markup, can take in; it is decoded with the page's own entities.
APOSTROPHE = "&#39;"
_NUMBER = re.compile(r"[-+\u2212]?[\d.,/ \u00a0]*\d[\d.,/ \u00a0]*(?:e[-+]?\d+)?", re.IGNORECASE)
_RANGES = {"-": "\u2013", "\u2013": "\u2013", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and "}
_RANGES |= {"or": " or ", "+/-": " \u00b1 ", "\u00b1": " \u00b1 ", "+": " + ", "to about": " to about "}
_RANGES |= {"and(-)": " and ", "\u00e0": " \u00e0 ", "et": " et ", "ou": " ou ", "a": " a ", "y": " y ", "bis": " bis "}
_RANGES |= dict.fromkeys(("by", "x", "*", "\u00d7", "xx"), " by ")
_UNITS = {"c": "\u00b0C", "f": "\u00b0F", "sqmi": "sq mi", "sqft": "sq ft", "cuft": "cu ft", "cumi": "cu mi"}
_UNITS |= {"oilbbl": "barrels", "moilbbl": "million barrels", "koilbbl": "thousand barrels", "sqin": "sq in"}
_UNITS |= {"sqyd": "sq yd", "cuin": "cu in", "cuyd": "cu yd", "ftin": "ft", "impgal": "imp gal", "usgal": "US gal"}
_SMALLER = {"ft": "in", "yd": "ft", "mi": "yd", "lb": "oz", "st": "lb", "lbs": "oz"}
_MUSIC = dict.fromkeys(("flat", "b"), "\u266d") | dict.fromkeys(("natural", "n"), "\u266e")
_MUSIC |= dict.fromkeys(("sharp", "#"), "\u266f") | dict.fromkeys(("dim", "diminished"), "\u00b0")
_MUSIC |= dict.fromkeys(("double-flat", "doubleflat", "double flat", "dbflat", "bb"), "\U0001d12b")
_MUSIC |= dict.fromkeys(("double-sharp", "doublesharp", "double sharp", "dbsharp", "##", "x"), "\U0001d12a")
_MUSIC |= dict.fromkeys(("aug", "augmented"), "+") | dict.fromkeys(("halfdim", "half-dim", "half-diminished"), "\u00f8")
_SEA_LEVELS = {"NHN": "\u00fc. NHN", "NN": "\u00fc. NN", "AT": "\u00fc. A.", "CH": "\u00fc. M.", "LI": "\u00fc. M."}
_ENGLISH_ENDINGS = {1: "st", 2: "nd", 3: "rd"}
_CODE = re.compile(r"[a-z]{2,3}(?:-[a-zA-Z]{2,8})*")


def first(args: Arguments) -> str:
    return args[0]


def second(args: Arguments) -> str:
    return args[1]


def second_or_first(args: Arguments) -> str:
    return args[1] or args[0]


def third_or_second(args: Arguments) -> str:
    return args[2] or args[1]


def last(args: Arguments) -> str:
    return args[-1]


def joined(args: Arguments) -> str:
    return "".join(args.listed)


def spaced(args: Arguments) -> str:
    return " ".join(filter(None, args.listed))


def listed(args: Arguments) -> str:
    return ", ".join(filter(None, args.listed))


def block(args: Arguments) -> str:
    text = args[0] or args.any_of("text", "quote", "content", "texte", "texto", "testo", "zitat", "tekst", "citat")
    return f"\n\n{text}\n\n"


def literal(text: str) -> Say:
    return lambda args: text


def before(text: str) -> Say:
    return lambda args: text + args[0]


def behind(text: str) -> Say:
    return lambda args: args[0] + text


def around(opening: str, closing: str) -> Say:
    return lambda args: f"{opening}{args[0]}{closing}" if args[0] else ""


def ill(args: Arguments) -> str:
    """A link into another wiki: its label, else the title; an old form has the language's code before the title."""
    label = args.any_of("lt", "label", "display", "text", "texte", "d")
    return label or (args[1] if _CODE.fullmatch(args[0]) and args[1] else args[0])


def linked_elsewhere(args: Arguments) -> str:
    """Title, text, language, foreign title: the text, else the title."""
    return args.any_of("text", "nom") or args[1] or args[0]


def lien(args: Arguments) -> str:
    """The French link into another wiki: `texte`, else the title here, else the first argument."""
    return args.any_of("texte", "fr") or args[0] or args.any_of("trad")


def helper(args: Arguments) -> str:
    """The Chinese link into another wiki: title, foreign title, text."""
    return args[2] or args[0]


def convert(args: Arguments) -> str:
    """`5|km|mi` -> "5 km", `5|-|10|km` -> "5-10 km" with an en dash, `2|x|3|x|4|m` -> "2 by 3 by 4 m"."""
    text, place = args[0].replace("+", " ") if "/" in args[0] else args[0], 1
    while (between := _RANGES.get(args[place])) is not None:
        text, place = f"{text}{between}{args[place + 1]}", place + 2
    text = f"{text} {_unit(args[place])}".rstrip()
    if args[place + 2] == _SMALLER.get(args[place], "in") and _NUMBER.fullmatch(args[place + 1]):
        return f"{text} {args[place + 1]} {args[place + 2]}"
    return text


def _unit(unit: str) -> str:
    return _UNITS.get(unit.lower(), unit)


def measure(args: Arguments) -> str:
    """`2000|m` -> "2000 m", `10|m|2` -> "10 m2", `5|km|/h` -> "5 km/h", `5|km||h|-1` -> "5 km/h"."""
    text, place = args[0], 1
    while (between := _RANGES.get(args[place])) is not None:
        text, place = f"{text}{between}{args[place + 1]}", place + 2
    units = ""
    for unit, power in zip_longest(args.listed[place::2], args.listed[place + 1 :: 2], fillvalue=""):
        if unit.startswith("/") or not power.lstrip("-\u2212").isdigit():
            units += unit if unit.startswith("/") or not units else f" {unit}"
            units += power if power.startswith("/") or not power else f" {power}"
        elif power in ("-1", "\u22121") and units:
            units += f"/{unit}"
        else:
            units += f"{' ' if units else ''}{unit}{power}"
    return f"{text} {units}".rstrip()


def metric(args: Arguments) -> str:
    """The Italian measure: `5|ul=km` -> "5 km"."""
    return f"{args[0]} {args.any_of('ul', 'u', 'um') or args[1]}".rstrip()


def height(args: Arguments) -> str:
    """`ft=6|in=1` -> "6 ft 1 in", `m=1.85` -> "1.85 m"."""
    return " ".join(f"{args.named[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if args.named.get(unit))


def above_sea(args: Arguments) -> str:
    """The German height: `500|DE-NHN` -> "500 m ü. NHN"; of what other countries count from, the metres."""
    return f"{args[0]} m {_SEA_LEVELS.get(args[1].removeprefix('DE-'), '')}".rstrip() if args[0] else ""


def gauge(args: Arguments) -> str:
    """`1435mm` -> "1435 mm", `4ft8.5in` -> "4 ft 8.5 in"."""
    return re.sub(r"(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", " ", args[0])


def value(args: Arguments) -> str:
    """`1.5|e=6|ul=m/s` -> "1.5x10^6 m/s" with a multiplication sign, `3|0.1|u=m` -> "3±0.1 m"."""
    power = f"\u00d710^{args.named['e']}" if args.named.get("e") else ""
    error = (f"+{args[1]}\u2212{args[2]}" if args[2] else f"\u00b1{args[1]}") if args[1] else ""
    return f"{args[0]}{error}{power} {args.any_of('u', 'ul')}".rstrip()


def ratio(args: Arguments) -> str:
    """`3|2` -> "3:2"."""
    return ":".join(filter(None, args.listed))


def music(args: Arguments) -> str:
    """`flat` -> "♭", `time|3|4` -> "3/4"; pictures say nothing."""
    if args[0] in ("time", "timesig", "time signature"):
        return "/".join(filter(None, args.listed[1:3]))
    return args[1] if args[0] in ("scale", "scaledegree") else _MUSIC.get(args[0].lower() or "sharp", "")


def power_of_ten(args: Arguments) -> str:
    """`6` -> "x10^6"; without an argument it is the e of a French ordinal."""
    return f"\u00d710^{args[0]}" if args[0] else "e"


def fraction(args: Arguments) -> str:
    if len(args.listed) >= 3:
        return f"{args[0]} {args[1]}/{args[2]}"
    return "/".join(args.listed) if len(args.listed) == 2 else f"1/{args[0]}"


def ordinal(args: Arguments) -> str:
    """`3` -> "3rd"."""
    if not args[0].isdecimal():
        return args[0]
    number = int(args[0][-9:])
    ending = "th" if 10 < number % 100 < 14 else _ENGLISH_ENDINGS.get(number % 10, "th")
    return args[0] + ending


def wrapped(args: Arguments) -> str:
    """The words that an editor's doubt is about."""
    return args[0] or args.any_of("text", "texte", "texto", "tekst")


def verse(args: Arguments) -> str:
    """`John|3:16` and `|John|3:16|KJV` -> "John 3:16", `1|John|2:3` -> "1 John 2:3"."""
    return " ".join(filter(None, args.listed[: 2 if args[0] and not args[0].isdigit() else 3]))


def german_verse(args: Arguments) -> str:
    """`Gen|1|2` -> "Gen 1,2"."""
    return f"{args[0]} {','.join(filter(None, args.listed[1:3]))}".rstrip()


def section_link(args: Arguments) -> str:
    """`Page|Part` -> "Page § Part"."""
    return " \u00a7 ".join(args.listed[:2]).strip()


def textual_citation(args: Arguments) -> str:
    """`Smith|Jones|2000|p=5` -> "Smith & Jones (2000, p. 5)"."""
    *authors, year = args.listed or [""]
    pages = [f"{sign} {args.named[key]}" for key, sign in (("p", "p."), ("pp", "pp.")) if args.named.get(key)]
    names = (
        f"{authors[0]} et al."
        if len(authors) > 3
        else " & ".join(filter(None, (", ".join(authors[:-1]), *authors[-1:])))
    )
    return f"{names} ({', '.join((year, *pages))})" if names else year


def nihongo(args: Arguments) -> str:
    """English, characters, reading -> "English (characters, reading)"."""
    inside = ", ".join(filter(None, args.listed[1:3]))
    return f"{args[0]} ({inside})" if args[0] and inside else args[0] or inside


def reading(args: Arguments) -> str:
    """`東京|とうきょう` -> the first with the second in wide parentheses."""
    return f"{args[0]}\uff08{args[1]}\uff09" if args[1] else args[0]


def chinese(args: Arguments) -> str:
    """Characters and pinyin out of `c=..|s=..|t=..|p=..`."""
    words = [args.any_of("c", "s", "t", "zh"), args.any_of("t") if args.any_of("s") else "", args.any_of("p", "hp")]
    return ", ".join(dict.fromkeys(filter(None, words))) or args[0]


def ship(args: Arguments) -> str:
    """Prefix, name, number, form: "German battleship Bismarck", with form 2 or 5 the name alone."""
    return _ship(args[0], args[1], args[3])


def ship_with(prefix: str) -> Say:
    """A ship whose prefix is the template's name: name, number, form."""
    return lambda args: _ship(prefix, args[0], args[2])


def _ship(prefix: str, name: str, form: str) -> str:
    return name if form in ("2", "5") else f"{prefix} {name}".strip()


def ship_class(args: Arguments) -> str:
    """`Nimitz|aircraft carrier` -> "Nimitz-class aircraft carrier"; forms 0 "-class", 4 " class", 5 the name alone."""
    ending = {"4": " class", "5": ""}.get(args[2], "-class" if args[1] else " class")
    kind = "" if args[2] in ("0", "4", "5") else args[1]
    return f"{args[0]}{ending} {kind}".rstrip() if args[0] else ""


def plural(args: Arguments) -> str:
    """`3|ship|ships` -> "ships"."""
    return args[1] if args[0].strip() in ("1", "-1") or not args[2] else args[2]


def old_money(args: Arguments) -> str:
    """`l=5|s=10|d=6` -> "£5 10s 6d"."""
    parts = [("\u00a3", "l", ""), ("", "s", "s"), ("", "d", "d")]
    return " ".join(f"{mark}{args.named[key]}{unit}" for mark, key, unit in parts if args.named.get(key)) or args[0]


def rupees(args: Arguments) -> str:
    """`500|c` -> "₹500 crore"."""
    scale = {"c": " crore", "l": " lakh", "lc": " lakh crore", "m": " million", "b": " billion", "t": " trillion"}
    return f"\u20b9{args[0]}{scale.get(args[1], '')}"


def paragraph_of_law(args: Arguments) -> str:
    """`823|BGB` -> "§ 823 BGB"."""
    return f"\u00a7 {args[0]} {args[1]}".rstrip()


def person(title: str) -> Say:
    """`Jean|Dupont` -> "M. Jean Dupont"."""
    return lambda args: " ".join(filter(None, (title, *args.listed)))


def lowered(args: Arguments) -> str:
    return args[0].lower()


def raised(args: Arguments) -> str:
    return args[0].upper()


def capitalised(args: Arguments) -> str:
    return args[0][:1].upper() + args[0][1:]
