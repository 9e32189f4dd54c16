"""Captions as the words that the metrics count: Penn Treebank tokens in lower case, without punctuation.

The COCO server and pycocoevalcap run Stanford CoreNLP 3.4.1's PTBTokenizer (`-preserveLines -lowerCase`) in Java and
drop a fixed list of punctuation tokens (Chen et al. 2015, https://arxiv.org/abs/1504.00325). This module has the rules
that captions use, written from its documentation and its output. It keeps the oddities, since scores depend on them:
`dog's` is `dog 's`, `can't` is `ca n't`, `plan a.` keeps `a.`, and brackets stay, as `-lrb-`, because the list has
them in capitals and is applied after lower-casing.

Differs on purpose: `5 1/2` and telephone numbers with spaces are several words here, one word with hard spaces there;
tags with spaces and links without http are not recognised.
"""

import re

LETTER = r"[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218b\u2460-\u249b]"
SIGN = rf"(?:{LETTER}|\d)"
END = rf"(?!{SIGN}|[-_]{SIGN}|[.!?]{LETTER})"  # where a word ends
CURLY = "\u2019"
APOSTROPHE = f"['{CURLY}]"
CLITIC = rf"{APOSTROPHE}(?:[sSmMdD]|re|RE|ve|VE|ll|LL)(?!{SIGN})"
WORD = rf"{LETTER}{SIGN}*(?:[.!?]{LETTER}{SIGN}*)*"  # "child.The" is one word
SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"

# They keep their full stop: in any case; only in capitals (in lower case they are words); only before a number.
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
    if CONTRACTED.fullmatch(token):  # only these curly apostrophes become straight
        token = token.replace(CURLY, "'")
    return token.lower().replace("(", "-lrb-").replace(")", "-rrb-")


def split_words(caption: str) -> list[str]:
    """Return the words of a caption in order; none if it has only punctuation."""
    return [_rewrite(token) for token in TOKEN.findall(caption) if not DROPPED.fullmatch(token)]
