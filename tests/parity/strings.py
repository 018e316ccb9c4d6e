"""The strings to tokenize, a list for each kind of problem, and the sentences that the vocabulary is trained on.

Characters that are hard to see, or that an editor might normalize, are written as escapes.
"""

SENTENCES = """
The cat sat on the mat, and the dog sat on the log.
A dog looked at the cat; the cat looked out of the window.
Jane threw the letters out of the window yesterday, because nobody had answered them.
Every morning the old teacher walked to the harbour and counted the boats that came home.
She said: "I don't know what you're talking about!" and closed the door behind her.
There are 365 days in a year, 24 hours in a day, and 60 minutes in an hour.
In 1969 the first people walked on the moon; it took them 102 hours to get there.
The price rose from 1,250.00 to 1,375.50 euros (10% more) between 2019 and 2024.
Reading, writing and counting are taught in the first years of school.
The rain in the mountains had been falling for weeks, and the river was rising quickly.
Language models learn to predict the missing words of a sentence from the words around them.
Is this the same train that leaves at noon, or is it the other one?
Nothing is lost; everything is transformed.
The children were playing in the garden while their parents were talking in the kitchen.
He bought bread, cheese, apples and two bottles of milk for less than twenty dollars.
O gato dormiu na varanda e o c\u00e3o ladrou no jardim durante a noite inteira.
A av\u00f3 abriu a janela: n\u00e3o h\u00e1 ningu\u00e9m na rua, s\u00f3 o vento e as folhas.
O av\u00f4 plantou um p\u00e9 de lim\u00e3o e outro de ma\u00e7\u00e3 atr\u00e1s da casa.
Amanh\u00e3 vamos \u00e0 praia, se n\u00e3o chover; sen\u00e3o ficamos em casa a ler.
Os portugueses chegaram ao Brasil em 1500, com treze navios e mais de mil homens.
A educa\u00e7\u00e3o \u00e9 um direito de todos e um dever do Estado e da fam\u00edlia.
Ela disse que voltaria \u00e0s tr\u00eas horas, mas s\u00f3 chegou \u00e0s cinco e meia.
O banco da pra\u00e7a estava ocupado, e o banco da esquina j\u00e1 tinha fechado.
As crian\u00e7as brincavam no quintal enquanto os pais conversavam na cozinha.
Quem n\u00e3o tem c\u00e3o ca\u00e7a com gato, dizia o meu tio com um sorriso.
A l\u00edngua portuguesa \u00e9 falada em v\u00e1rios pa\u00edses da \u00c1frica, da Am\u00e9rica e da Europa.
O cora\u00e7\u00e3o dele batia t\u00e3o depressa que mal conseguia respirar.
Que \u00f3ptima ideia! H\u00e1 quanto tempo voc\u00eas n\u00e3o se viam? Desde o ver\u00e3o.
Os alunos estudaram as equa\u00e7\u00f5es e resolveram todas as quest\u00f5es da prova.
P\u00f4r a m\u00e3o na massa \u00e9 melhor do que ficar \u00e0 espera, n\u00e3o achas?
\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u8d70\u4e00\u8d70\u3002
\u6211\u559c\u6b22\u8bfb\u4e66\uff0c\u4e5f\u559c\u6b22\u559d\u8336\u3002
\u6771\u4eac\u306e\u51ac\u306f\u5bd2\u3044\u3067\u3059\u3002 \u30c6\u30b9\u30c8\u3092\u3057\u307e\u3059\u3002
\u041a\u043e\u0448\u043a\u0430 \u0441\u043f\u0438\u0442 \u043d\u0430 \u043e\u043a\u043d\u0435. \u0397 \u03b3\u03ac\u03c4\u03b1 \u03ba\u03bf\u03b9\u03bc\u03ac\u03c4\u03b1\u03b9.
\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd. \u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645. \uace0\uc591\uc774\uac00 \uc794\ub2e4.
\U0001f600 \U0001f44d \u2764 \u2014 \u201cquoted\u201d \u2026 \u20ac \u00a3 + = < > @ # & * / [ ] { } ~ ^ _ ` | \\ $
""".strip().splitlines()

PORTUGUESE = [
    "N\u00e3o h\u00e1 ningu\u00e9m em casa.",
    "A av\u00f3 e o av\u00f4 v\u00e3o \u00e0 feira aos s\u00e1bados.",
    "O CORA\u00c7\u00c3O DA FAM\u00cdLIA",
    "pingue-pongue, guarda-chuva, p\u00f4r-do-sol",
    "Diga-me c\u00e1: voc\u00ea j\u00e1 leu \u00abOs Lus\u00edadas\u00bb?",
    "amea\u00e7\u00e1-lo-\u00edamos, dir-se-ia, d\u00ea-mo",
    "ag\u00fcentar, ling\u00fc\u00ed\u00e7a, fr\u00eam\u00edto",
    "O banco fechou; sentei-me no banco da pra\u00e7a.",
    "R$ 1.234,56 \u2014 10% de desconto!",
    "S\u00e3o Paulo, 7 de setembro de 1822",
    "a/o aluno(a) n\u00ba 3, 2\u00aa s\u00e9rie",
    "\u00d3timo! Excelente\u2026 Incr\u00edvel?!",
    "ele disse \u201cn\u00e3o\u201d e foi-se embora",
    "\u00c0s vezes \u00e0s tr\u00eas, \u00e0s vezes nunca",
    "muit\u00edssimo, f\u00e1cil, dif\u00edceis, p\u00e3es, m\u00e3os, p\u00f5e",
    "Cabral chegou ao Brasil em 1500.",
    "Quem descobriu o Brasil?",
    "Uma a\u00e7\u00e3o, duas a\u00e7\u00f5es.",
]

PLAIN = [
    "The cat sat on the mat.",
    "the cat sat on the mat",
    "Looking, looked, looks! Sitting and sat?",
    "a",
    "A",
    "x y z",
    "unaffable transformations",
    "Don't you're it's I'll we've o'clock",
    "e-mail: someone@example.org, https://example.org/a?b=c&d=e#f",
    "C:\\Users\\cat\\file.txt /usr/local/bin",
    "snake_case camelCase kebab-case SCREAMING_CASE",
    "if (a[i] != b[j]) { return x->y; }",
    "the the the the the the the the",
    "thethethethethethe",
    "Mr. Smith went to Washington, D.C., at 3 p.m.",
]

NUMBERS_AND_PUNCTUATION = [
    "1234567890",
    "3.14159 2,718 1e-5 0x1F 1/2 50% #7 n.1",
    "1 000 000,00",
    "12:34:56 2024-02-29",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "...!!!???",
    "a.b.c.d",
    ".a.",
    "--- -- -",
    "((()))",
    "\u201cquoted\u201d \u2018single\u2019 \u00abguillemets\u00bb \u201elow\u201c",
    "\u2014em\u2014dash\u2014en\u2013dash\u2013minus\u2212hyphen\u2010",
    "\u2026 \u2025 \u2024",
    "\u20ac100 \u00a320 \u00a55 $1 \u20bf",
    "\u00a7 \u00b6 \u2020 \u2021 \u2022 \u00b7 \u00bf\u00a1",
    "\u00bd \u00bc \u00b2 \u00b3 \u2074 \u2080 \u2153",
    "\u00b1 \u00d7 \u00f7 \u2260 \u2264 \u2265 \u221e \u2211 \u221a",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u17e1\u17e2",
    "\u2160\u2161\u2163 \u2170\u2171 \u2188",
    "\u2460\u2461 \u24b6\u24d0 \u3251",
    "\u3001\u3002\u300c\u300d\u3010\u3011\u301c",
    "\u055a\u0589\u05be\u05c0\u060c\u061f\u0964\u0f0b\u1362\u2cfe\ua4ff",
    "\U00010100\U0001039f\U00012470\U0001bc9f",
    "^caret `grave~tilde|pipe=equals+plus<less>greater$dollar",
]

ACCENTS = [
    "caf\u00e9",
    "cafe\u0301",
    "CAF\u00c9 CAFE\u0301",
    "\u00e0\u00e1\u00e2\u00e3\u00e4\u00e5 a\u0300a\u0301a\u0302a\u0303a\u0308a\u030a",
    "\u00c7\u00e7 C\u0327c\u0327",
    "\u00f1 n\u0303 \u00d1 N\u0303",
    "\u1e69 s\u0323\u0307 s\u0307\u0323 \u1e61\u0323 \u1e63\u0307",
    "\u1ec7 e\u0323\u0302 e\u0302\u0323 \u00ea\u0323 \u1eb9\u0302",
    "\u00e6 \u00f8 \u0142 \u0111 \u00f0 \u00fe \u00df \u1e9e \u0153",
    "\u0130stanbul \u0131\u015f\u0131k DI\u015eI",
    "I\u0307 i\u0307 \u0130",
    "\u01c5 \u01c4 \u01c6 \u01f1 \u01f2",
    "\ufb01nd \ufb02y \ufb03 \ufb04 \ufb00 \ufb05",
    "\u017fenate \u212a \u212b \u00c5 A\u030a",
    "\u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3 \u03c2 \u03c3 \u03ac \u1f71 \u1fb3 \u1f88",
    "\u0419\u0439 \u0418\u0306\u0438\u0306 \u0401\u0451",
    "\u1100\u1161\u11a8 \uac01 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u304b\u3099 \u304c \u30cf\u309a \u30d1 \uff8a\uff9f",
    "\u0915\u093c \u0958 \u0928\u093f \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e01\u0e33",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031ea\u0300\u0316l\u0332g\u0489o\u20dd",
    "\u0301alone first",
    "alone last\u0301",
    "space \u0301 between",
    "\u0301",
    "\u0301\u0302\u0303",
    "x\u20d7 y\u20d2 1\ufe0f\u20e3",
    "\u00a8 \u00b4 \u00b8 \u02dc \u02c6 ^ ` ~",
    "\u0344 \u0340\u0341 \u0343",
    "a\u035cb o\u0361e",
    "\u1e00\u1e01 \u1ef8\u1ef9 \u1eff",
]

CHINESE_JAPANESE_KOREAN = [
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u6211\u559c\u6b22reading\u8bfb\u4e66",
    "abc\u4e2ddef\u56fdghi",
    "\u4e2d",
    "\u4e2d \u56fd",
    "\u3400\u4dbf\u4e00\u9fff\u9fa5",
    "\U00020000\U0002a6df\U0002a700\U0002b81d\U0002b820\U0002ceaf",
    "\U0002f800\U0002fa1d\U00030000\U0003134a",
    "\uf900\ufa0e\ufa29\ufad9",
    "\u3007\u3005\u3006\u303b\u2e80\u2f00\u31c0",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c",
    "\u30c6\u30b9\u30c8\u30fb\u30b1\u30fc\u30b9",
    "\uac00\ub098\ub2e4 \ud55c\uad6d\uc5b4",
    "\u1100\u1161 \u3131\u314f",
    "\uff41\uff42\uff43 \uff21\uff22\uff23 \uff11\uff12\uff13 \uff01\uff1f",
    "\uff71\uff72\uff73 \uffa1\uffc2",
    "\u3000\u4e2d\u3000\u6587\u3000",
    "\u6771\u4eac2024\u5e741\u67081\u65e5(\u6708)",
    "\u4e2d\u0301\u6587\u200d\u5b57",
]

EMOJI = [
    "\U0001f600",
    "I \u2764\ufe0f you",
    "\u2764",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f44d\U0001f3fd\U0001f44d\U0001f3ff",
    "\U0001f1e7\U0001f1f7\U0001f1f5\U0001f1f9 flags",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f600\U0001f600\U0001f600",
    "hi\U0001f600there",
    "1\ufe0f\u20e3 2\u20e3 #\ufe0f\u20e3",
    "\u263a \u263a\ufe0e \u263a\ufe0f",
    "\U0001f9d1\U0001f3fb\u200d\U0001f680",
    "\U0001fae8 \U0001fadd \U0001f6dc",
    "\u00a9 \u00ae \u2122 \u2139 \u24c2",
    ":-) ;) <3 :D",
]

CONTROLS_AND_INVISIBLES = [
    "a\x00b",
    "\x00",
    "a\x01b\x02c\x1fd\x7fe",
    "bell\x07 back\x08space esc\x1b[31m",
    "vertical\x0btab form\x0cfeed",
    "next\x85line",
    "a\u200bb zero width space",
    "a\u200cb\u200dc joiners",
    "a\u2060b\ufeffc",
    "\ufeffbyte order mark",
    "soft\u00adhyphen",
    "a\u034fb",
    "a\ufffdb",
    "\ufffd",
    "a\ufffeb\uffffc",
    "\ud7ff\ue000\uf8ff",
    "\U0000fdd0\U0001fffe\U0001ffff\U0010ffff",
    "\U000f0000\U00100000",
    "\U000e0001\U000e0041",
    "a\u2028b\u2029c",
    "\u200e\u200fa\u202ab\u202cc",
    "a\u2066b\u2069c",
    "a\u061cb\u180eb",
    "\u115f\u1160\u3164\uffa0",
    "\u0378\u0530\u05c8\u0870\u1c8a\u2fe0",
    "\u1cfa0 \ua7cb\ua7cc\ua7da",
]

BLANKS = [
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    " \t\n\r ",
    "\u00a0",
    "\u3000",
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a",
    "\u1680\u202f\u205f",
    "\x0b\x0c",
    "\u2028\u2029",
    "\x85",
    "\u200b",
    "\ufeff",
    "a\u00a0b\u3000c\u2003d\u1680e\u205ff",
    " leading",
    "trailing ",
    "  two  blanks  ",
    "line one\nline two\r\nline three\rline four",
    "tab\tseparated\tvalues",
    "\n\n\nparagraph\n\n\n",
    "a \u0301b",
]

RIGHT_TO_LEFT = [
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",
    "\u0622 \u0627\u0653 \u0623 \u0627\u0654",
    "\ufefb \ufdf2 \ufe8d",
    "abc \u05d0\u05d1\u05d2 123 \u0627\u0628\u062c",
    "\u200f\u05e9\u05dc\u05d5\u05dd\u200e hello",
    "\u06f1\u06f2\u06f3 \u0660\u0661",
    "\u0626\u06c6\u06d5 \u067e\u0686\u0698\u06af",
    "\U00010900\U00010901 \U0001e900\U0001e922",
]

OTHER_SCRIPTS = [
    "\u041a\u043e\u0448\u043a\u0430 \u0441\u043f\u0438\u0442 \u043d\u0430 \u043e\u043a\u043d\u0435",
    "\u0397 \u03b3\u03ac\u03c4\u03b1 \u03ba\u03bf\u03b9\u03bc\u03ac\u03c4\u03b1\u03b9",
    "\u10d9\u10d0\u10e2\u10d0 \u1c99\u1c90 \u10a0\u2d00",
    "\u0562\u0561\u0580\u0587 \u0532\u0531\u0550\u0535\u0552",
    "\u13a0\u13a1 \uab70\uab71",
    "\u1200\u1201\u1202",
    "\u0b95\u0bca \u0b95\u0bc6\u0bbe",
    "\u0f40\u0f71\u0f72 \u0f73",
    "\u1000\u1025\u102e \u1026",
    "\U00010400\U00010428 \U000104b0\U000104d8",
    "\U0001d400\U0001d4d0\U0001d56c \U0001d7d8",
    "\U0001f130\U0001f150\U0001f170",
    "\U00011099\U000110ba \U0001109a \U0001d15e",
    "\ua640\ua641 \ua722\ua723 \u2c60\u2c61",
    "\u1d00\u1d2c\u02b0\u207f",
]

SPECIAL_TOKENS = [
    "[MASK]",
    "it [MASK] out the window.",
    "it [mask] out the window.",
    "it[MASK]out",
    "[MASK][MASK][MASK]",
    " [MASK] ",
    "[MASK]\n[MASK]\t[MASK]",
    "[CLS] a [SEP] b [SEP]",
    "[PAD] [PAD]",
    "[UNK] is known",
    "[CLS][SEP]",
    "[ MASK ]",
    "[MASK",
    "MASK]",
    "[[MASK]]",
    "[MA\u0301SK]",
    "[MA\u200bSK]",
    "\uff3bMASK\uff3d",
    "##cat cat##",
    "# #cat ##",
    "[unused1] <s> </s> <mask>",
    "\u4e2d[MASK]\u56fd",
    "e\u0301[MASK]e\u0301",
    "[Mask] [MASK]s [MASK]ed un[MASK]",
]

LONG_WORDS = [
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "e\u0301" * 50,
    "e\u0301" * 51,
    "e\u0301" * 100,
    "e\u0301" * 101,
    "\u00e9" * 100,
    "\u00e9" * 101,
    "the" * 33 + "t",
    "the" * 34,
    "the" * 34 + " the cat",
    "-".join(["a" * 101] * 3),
    "\U0001f600" * 101,
    "\u4e2d" * 101,
    "x" + "\u200b" * 200 + "y",
    "a" * 10_000,
]

# Phrases and their number of repetitions, which give about 10,000 characters.
LONG = [
    ("The cat sat on the mat, and [MASK] looked out of the window. ", 164),
    ("A av\u00f3 abriu a janela: n\u00e3o h\u00e1 ningu\u00e9m na rua. ", 220),
    ("\u6211\u559c\u6b22\u8bfb\u4e66\uff0c\u4e5f\u559c\u6b22\u559d\u8336\u3002", 834),
    ("e\u0301\u0302 \U0001f468\u200d\U0001f469\u200d\U0001f467 \x00\u200b\u3000\u05e9\u05b8 ", 715),
    (" \n", 5000),
    ("!", 10000),
    ("supercalifragilistic ", 477),
]


def runs():
    """Returns words with a character between two letters, for code points around the starts of scripts and categories."""
    starts = [
        *range(0x80, 0x100, 32), 0x180, 0x1C0, 0x230, 0x250, 0x2B0, 0x2E0, 0x300, 0x340, 0x360, 0x37A, 0x3F0, 0x480,
        0x55A, 0x591, 0x5B0, 0x5F0, 0x600, 0x610, 0x64B, 0x66A, 0x6D4, 0x700, 0x7F0, 0x8E0, 0x93A, 0x964, 0x9BC,
        0xA3C, 0xE31, 0xEB4, 0xF04, 0xF35, 0xF71, 0x1037, 0x10FB, 0x135D, 0x1361, 0x16EB, 0x1735, 0x17B4, 0x17D4,
        0x1800, 0x18A9, 0x1A1E, 0x1AB0, 0x1B34, 0x1C3B, 0x1CD0, 0x1D1A, 0x1DC0, 0x1E94, 0x1F80, 0x1FBD, 0x1FFD,
        *range(0x2000, 0x2070, 16), 0x207A, 0x20A0, 0x20D0, 0x20E0, 0x2100, 0x2120, 0x2190, 0x2308, 0x2329, 0x23E0,
        0x2440, 0x249C, 0x24B6, 0x25A0, 0x2600, 0x2768, 0x27E6, 0x2983, 0x29D8, 0x2C60, 0x2CEF, 0x2D7F, 0x2DE0,
        0x2E00, 0x2E80, 0x2FF0, 0x3000, 0x3010, 0x3020, 0x3030, 0x3099, 0x30FB, 0x3190, 0x31F0, 0x3200, 0x33F0,
        0x33F8, 0x4DB8, 0x4DC0, 0x4DF8, 0x9FF8, 0xA490, 0xA66F, 0xA69E, 0xA6F0, 0xA716, 0xA802, 0xA8E0, 0xA926,
        0xA9C1, 0xABE3, 0xD7A0, 0xF8F8, 0xFA68, 0xFB00, 0xFB13, 0xFB1D, 0xFD3E, 0xFDF8, 0xFE00, 0xFE10, 0xFE20,
        0xFE30, 0xFE50, 0xFE70, 0xFEF8, *range(0xFF00, 0x10000, 32), 0x10100, 0x101FD, 0x10400, 0x104B0, 0x10A38,
        0x10C80, 0x11000, 0x11047, 0x110B9, 0x1D165, 0x1D17B, 0x1D1BB, 0x1D400, 0x1E8D0, 0x1E900, 0x1EEF0, 0x1F000,
        0x1F130, 0x1F1E6, 0x1F3FB, 0x1F5F8, 0x1F900, 0x20000, 0x2A6D8, 0x2B730, 0x2B818, 0x2CEA8, 0x2F800, 0x2FA18,
        0x30000, 0xE0000, 0xE0020, 0xE0100, 0xF0000, 0x10FFF0,
    ]  # fmt: skip
    return [" ".join(f"x{chr(point)}x" for point in range(start, start + 16)) for start in starts]


STRINGS = [
    *BLANKS,
    *PLAIN,
    *PORTUGUESE,
    *NUMBERS_AND_PUNCTUATION,
    *ACCENTS,
    *CHINESE_JAPANESE_KOREAN,
    *EMOJI,
    *CONTROLS_AND_INVISIBLES,
    *RIGHT_TO_LEFT,
    *OTHER_SCRIPTS,
    *SPECIAL_TOKENS,
    *LONG_WORDS,
    *runs(),
]

# First text, and second text or None.
PAIRS = [
    ("the cat sat on the mat and the dog sat on the log", None),
    ("a", None),
    ("", None),
    ("", ""),
    ("the cat", ""),
    ("", "the cat sat on the mat"),
    ("the cat", "the cat sat on the mat and the dog sat on the log"),
    ("the cat sat on the mat and the dog sat on the log", "the cat"),
    ("the cat sat on the mat and the dog sat", "the cat sat on the mat and the dog sat"),
    ("A av\u00f3 abriu a janela", "n\u00e3o h\u00e1 ningu\u00e9m na rua, s\u00f3 o vento e as folhas."),
    ("it [MASK] out the window.", "\u6211\u559c\u6b22\u8bfb\u4e66"),
    ("unaffable", "caf\u00e9 \U0001f600 e\u0301 [SEP] x"),
]
