"""What inline templates of dates, ages, centuries and hours say: functions from their arguments to what a reader sees.

Knows nothing of the names of templates, of brackets, links or pages.
"""

import re
from collections.abc import Sequence
from datetime import date
from itertools import zip_longest

from data_prep.raw.wikiarguments import Arguments
from data_prep.raw.wikisay import Say

_MONTHS = ["January", "February", "March", "April", "May", "June"]
_MONTHS += ["July", "August", "September", "October", "November", "December"]
_ROMAN = re.compile(r"[IVXLC]+", re.IGNORECASE)


def full_date(args: Arguments) -> str:
    """`2015|3|31` -> "31 March 2015"."""
    month = _MONTHS[int(args[1]) - 1] if re.fullmatch("0?[1-9]|1[0-2]", args[1]) else args[1]
    return " ".join(filter(None, (args[2].lstrip("0"), month, args[0])))


def as_of(args: Arguments) -> str:
    """`2015|3|lc=y` -> "as of March 2015"."""
    if args.named.get("alt"):
        return args.named["alt"]
    opening = "Since" if args.named.get("since") else "As of"
    return f"{opening.lower() if args.named.get('lc') else opening} {full_date(args)}"


def age(args: Arguments) -> str:
    """Whole years from one date to another, `1950|5|1|2000|4|1` -> "49"; up to today they are nobody's to say."""
    try:
        begin, end = (date(*(int(part) for part in args.listed[start : start + 3])) for start in (0, 3))
    except (ValueError, TypeError, OverflowError):
        return ""
    return str(end.year - begin.year - ((end.month, end.day) < (begin.month, begin.day)))


def age_in_days(args: Arguments) -> str:
    """Days from one date to another, `2000|1|1|2000|1|5` -> "4"; up to today they are nobody's to say."""
    try:
        begin, end = (date(*(int(part) for part in args.listed[start : start + 3])) for start in (0, 3))
    except (ValueError, TypeError, OverflowError):
        return ""
    return str((end - begin).days)


def month_name(args: Arguments) -> str:
    """`3` -> "March"."""
    return _MONTHS[int(args[0]) - 1] if re.fullmatch("0?[1-9]|1[0-2]", args[0]) else args[0]


def duration(args: Arguments) -> str:
    """`1|2|3` -> "1:02:03", `m=3|s=45` -> "3:45"."""
    parts = [args[place] or args.named.get(unit, "") for place, unit in enumerate("hms")]
    first, *others = [part for part in parts if part] or [""]
    return ":".join((first, *(part.zfill(2) for part in others)))


def span_of_years(before: str, between: str) -> Say:
    """`1500|1520` -> "fl. 1500-1520" with an en dash."""
    return lambda args: before + between.join(filter(None, args.listed[:2]))


def day_first(months: Sequence[str], between: str = " ", first_day: str = "1", behind_day: str = "") -> Say:
    """Day, month, year, or the other way about, as other languages write them: `14|7|1789` -> "14 juillet 1789"."""

    def say(args: Arguments) -> str:
        day, month, year = args[0].lstrip("0"), args[1], args[2]
        if re.fullmatch(r"\d{4}", args[0]) and args[2]:
            day, year = args[2].lstrip("0"), args[0]
        if re.fullmatch("0?[1-9]|1[0-2]", month):
            month = months[int(month) - 1]
        day = first_day if day == "1" else day
        return between.join(filter(None, (day + behind_day if month and day else day, month, year)))

    return say


def double_date(args: Arguments) -> str:
    """`12 мая|1950|30 апреля`, a date in two calendars -> "12 мая (30 апреля) 1950"."""
    other = f" ({args[2]})" if args[2] else ""
    return f"{args[0]}{other} {args[1]}".strip()


def centuries(before_them: str, behind: str, ending: str = "") -> Say:
    """Roman numerals and what joins them: `XVIII|e|au|XIX|e` -> "XVIIIe au XIXe siècle"."""

    def say(args: Arguments) -> str:
        words: list[str] = []
        for index, word in enumerate(args.listed):
            follows = args.listed[index - 1] if index else ""
            if _ROMAN.fullmatch(word) and not (word in ("e", "C") and follows):
                words.append(word + ending)
            elif word in ("e", "er", "\u00e8re", "re") and words:
                words[-1] = words[-1].removesuffix(word).removesuffix(ending) + word
            elif word.strip() and word != "s":
                words.append(word)
        several = behind.startswith(" si\u00e8cle") and not {"et", "s"}.isdisjoint(args.listed[1:])
        follows = behind.replace("si\u00e8cle", "si\u00e8cles") if several and "si\u00e8cles" not in behind else behind
        return f"{before_them}{' '.join(words)}{follows}" if words else ""

    return say


def two_centuries(args: Arguments) -> str:
    """`XVIII|e|XIX|e` -> "XVIIIe et XIXe siècles"."""
    pairs = zip_longest(args.listed[::2], args.listed[1::2], fillvalue="")
    numbers = [number + (ending or "e") for number, ending in pairs]
    return f"{' et '.join(numbers)} si\u00e8cles" if numbers else ""


def century_or_text(args: Arguments) -> str:
    """`XIX` -> "XIXe siècle" (French), anything else as it is (Russian: text in one line)."""
    return centuries("", " si\u00e8cle", "e")(args) if _ROMAN.fullmatch(args[0]) else args[0]


def spanish_century(args: Arguments) -> str:
    """`V|a` -> "V a. C.", `XIX||s` -> "siglo XIX"; the third argument says that the word stands before it."""
    era = {"a": "a. C.", "d": "d. C."}.get(args[1].lower(), "")
    word = {"s": "siglo", "S": "Siglo"}.get(args[2], "")
    return " ".join(filter(None, (word, args[0], era)))


def spanish_centuries(args: Arguments) -> str:
    """`V|VI` -> "siglos V y VI"."""
    return f"siglos {' y '.join(args.listed[:2])}" if args[1] else f"siglo {args[0]}"


def clock(args: Arguments) -> str:
    """`12|30` -> "12 h 30"."""
    return f"{args[0]} h {args[1]}".rstrip()


def lifetime(args: Arguments) -> str:
    """`1950年|5月1日|2000年|3月2日` -> the two dates with a wide hyphen."""
    born, died = args[0] + args[1], args[2] + args[3]
    return f"{born}\uff0d{died}" if died else born
