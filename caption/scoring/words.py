"""Captions as the words that the metrics count: Penn Treebank tokens in lower case, without punctuation.

The COCO server and pycocoevalcap run Stanford CoreNLP 3.4.1's PTBTokenizer (`-preserveLines -lowerCase`) in Java and
drop the tokens of a fixed list of punctuation (Chen et al. 2015, https://arxiv.org/abs/1504.00325). This is the
part of its rules that captions meet, written from what it answers and what is known of its rules. Its oddities are
kept, since scores depend on them: `dog's` is `dog 's`, `can't` is `ca n't`, `plan a.` keeps `a.`, and brackets stay,
as `-lrb-`, because the list names them in capitals after everything was put in lower case.

Knowingly different: `5 1/2` and telephone numbers with spaces are several words here, one with hard spaces inside
there; tags with spaces and links without http are not looked for.
"""

import re

LETTER = r"[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218b\u2460-\u249b]"
SIGN = rf"(?:{LETTER}|\d)"
END = rf"(?!{SIGN}|[-_]{SIGN}|[.!?]{LETTER})"  # where a whole word ends
CURLY = "\u2019"
APOSTROPHE = f"['{CURLY}]"
CLITIC = rf"{APOSTROPHE}(?:[sSmMdD]|re|RE|ve|VE|ll|LL)(?!{SIGN})"
WORD = rf"{LETTER}{SIGN}*(?:[.!?]{LETTER}{SIGN}*)*"  # "child.The" is one word
SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"

# Keep their full stop: in any case; in capitals only (small, they are words); before a number only.
ABBREVIATIONS = (
    "al|cf|co|ct|dr|ft|ga|jr|ky|lt|md|mo|mr|ms|mt|ph|rd|rt|sq|sr|st|va|vs|vt|wm|adj|adm|adv|ala|apr|aug|ave|bhd|"
    "cie|col|cos|cpl|dak|dec|det|drs|ens|esq|est|etc|ext|feb|fla|fri|gen|gov|hon|inc|ind|jan|jos|jul|jun|kan|ltd|"
    "maj|mar|mfg|mme|mon|mrs|mtg|neb|nev|nov|oct|pfc|plc|pte|pty|pvt|rep|rev|sen|sep|seq|sfc|sgt|spc|ste|sys|tel|"
    "thu|tue|wed|wis|wyo|alex|ariz|assn|asst|atty|bldg|blvd|brig|bros|capt|cmdr|colo|conn|corp|dept|elec|govs|"
    "insp|intl|invt|kans|mich|minn|mlle|mont|msgr|natl|okla|penn|pres|prof|reps|sens|sept|supt|tenn|tues|univ|"
    "wisc|messrs|profs|attys|thurs|calif|assoc"
)
CAPITAL_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|ARK|AZ|DEL|ILL|LA|MASS|MISS|ORE|PA|TEX|WASH"
NUMBER_ABBREVIATIONS = "ca|no|op|pp|art|fig|nos|figs|prop"

RULES = [
    r"https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    rf"[A-Za-z0-9][\w.+-]*@{SIGN}[\w-]*(?:\.[\w-]+)*",
    rf"[A-Za-z](?:\.[A-Za-z])+\.(?!{SIGN})(?:-{SIGN}+)*",  # U.S., p.m.
    rf"[A-Za-z]\.(?!{LETTER})",
    rf"(?i:{ABBREVIATIONS})\.(?!{LETTER})",
    rf"(?:{CAPITAL_ABBREVIATIONS})\.(?!{LETTER})",
    rf"(?i:{NUMBER_ABBREVIATIONS})\.(?=\s*\d)",
    rf"{LETTER}+?(?=[nN]{APOSTROPHE}[tT](?!{SIGN}))",
    rf"[nN]{APOSTROPHE}[tT](?!{SIGN})",
    rf"{WORD}\.(?:-{SIGN}+)+|{LETTER}+\.(?=[,;:])",  # "street.-side", "knife.,"
    rf"(?i:can(?=not{END})|gon(?=na{END})|got(?=ta{END})|lem(?=me{END})|gim(?=me{END})|wan(?=na{END}))",
    rf"(?i:more(?='n{END})|'t(?=is{END}|was{END}))",
    rf"{WORD}(?={CLITIC})",
    rf"[A-HJ-XZndol]{APOSTROPHE}[A-Za-z]{{2}}{LETTER}*",  # O'Neil, d'Artagnan
    rf"{LETTER}+[aeiouyAEIOUY]{APOSTROPHE}[aeiouA-Z]{LETTER}*",  # ma'am
    rf"(?i:ol|dunkin|somethin|y|l|d|j){APOSTROPHE}(?!{APOSTROPHE})",
    rf"(?i:c'mon|e'er|s'mores|ev'ry|li'l|nat'l|nor'easter)(?!{SIGN})",
    CLITIC,
    rf"{APOSTROPHE}(?i:em|till?|cause)(?!{SIGN})|{APOSTROPHE}[nN](?:{APOSTROPHE}|(?!{SIGN}))",
    rf"{APOSTROPHE}(?:[2-9]0s|\d\d(?=[\s.,;:?!-]|$))",  # the '90s, a '57 car
    r"\d{1,4}-\d{1,4}/\d{1,4}(?!\d)",
    rf"{SLASHED}(?:/{SLASHED}){{1,2}}",
    rf"{SIGN}+(?:[-_]{SIGN}+)+",
    r"[A-Z]+(?:&[A-Z]+)+(?![a-z])",
    WORD,
    rf"\d+{LETTER}{SIGN}*",
    r"[+-]?\d+(?:[.:,]\d+)*|[+-]?(?:[.:,]\d+)+",
    r"&(?:amp|lt|gt|quot|apos|nbsp);",
    rf"[<>]?[:;=][-o*']?(?:[()\\\[\]|@]|[DPdp](?!{SIGN}))|\^_\^|-_-",  # smileys
    r"</?[A-Za-z][^<>\s]*>",  # <unk>
    r"[@#][A-Za-z_]\w*",
    r"[?!]+|_+|\.{3,}|-{2,}|\*+|#+|<<|>>|''|``",
    r"[^\s\U00010000-\U0010ffff]",
]
TOKEN = re.compile("|".join(RULES))
CONTRACTED = re.compile(rf"{CLITIC}|[nN]{APOSTROPHE}[tT]")

# Quotes, dashes and dots in their many forms, selectors and joiners of emoji; the entities of quotes and spaces.
DROPPED = re.compile(
    r"['\"`\u2018-\u201f\u2039\u203a«»]+|[.?!,:;\u2026]|\.+|-+|[\u2013-\u2015\ufe0e\ufe0f\u200b\u200d]|&(?:quot|apos|nbsp);"
)
REWRITTEN = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "£": "#",
    "€": "$",
    "¢": "cents",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
}


def _rewrite(token: str) -> str:
    if token in REWRITTEN:
        return REWRITTEN[token]
    if CONTRACTED.fullmatch(token):  # the only apostrophes that are straightened
        token = token.replace(CURLY, "'")
    return token.lower().replace("(", "-lrb-").replace(")", "-rrb-")


def split_words(caption: str) -> list[str]:
    """The words of a caption, in order; none where it holds nothing but punctuation."""
    return [_rewrite(token) for token in TOKEN.findall(caption) if not DROPPED.fullmatch(token)]
