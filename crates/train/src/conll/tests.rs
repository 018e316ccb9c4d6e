//! Tests of the reader of CoNLL files.

use proptest::prelude::*;

use super::*;

fn read(text: &str, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
    parse(Path::new("a.conll"), text, format)
}

fn shown(sentences: &[TaggedSentence]) -> Vec<String> {
    let word = |(word, tag): (&String, &String)| format!("{word}/{tag}");
    let sentence = |s: &TaggedSentence| s.words.iter().zip(&s.tags).map(word).collect::<Vec<_>>().join(" ");
    sentences.iter().map(sentence).collect()
}

#[test]
fn reads_every_form() {
    // Tabs; sentences end with blank lines, or lines that hold only a tab; words with blanks, and the word `#`.
    let text = "#\tO\nNew York\tB-LOC\r\n\t\n\n\nis\tO\n \u{a0}\tO";
    let (sentences, report) = read(text, &ConllFormat::new()).unwrap();
    assert_eq!(shown(&sentences), ["#/O New York/B-LOC", "is/O \u{a0}/O"]);
    assert_eq!(report.to_string(), "2 sentences, 4 words, tags in IOB2");

    // CoNLL-2003.
    let text =
        "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nhere RB  I-NP O\n-DOCSTART- -X- -X- O\nRio NNP I-NP I-LOC\n";
    let (sentences, report) = read(text, &ConllFormat::new()).unwrap();
    assert_eq!(shown(&sentences), ["U.N./B-ORG here/O", "Rio/B-LOC"]);
    let said = "2 sentences, 3 words, tags in IOB1; 2 tag(s) converted to IOB2";
    assert_eq!((report.to_string().as_str(), report.scheme), (said, Some(TagScheme::Iob1)));
    let (sentences, report) = read(text, &ConllFormat::new().tag_column(2)).unwrap();
    assert_eq!(shown(&sentences), ["U.N./NNP here/RB", "Rio/NNP"]);
    assert_eq!(report.to_string(), "2 sentences, 3 words, tags in no known scheme (the first is \"NNP\" on line 3)");

    // The tag in the first column; comments.
    let text = "# id 1\tx=2\nB-X a\nI-X b\n# id 2\nO c\n\n# id 3\nI-X d\n";
    let format = ConllFormat::new().word_column(2).tag_column(1).comment("# id");
    let (sentences, report) = read(text, &format).unwrap();
    assert_eq!(shown(&sentences), ["a/B-X b/I-X c/O", "d/B-X"]);
    assert_eq!((report.irregular, report.first_irregular, report.converted), (1, Some(8), 1));
    assert!(report.to_string().ends_with("1 tag(s) violate the scheme, the first on line 8"), "{report}");
}

#[test]
fn first_columns_that_count_are_ids() {
    for (text, expected) in [
        ("1\tAna\tB-PER\n2\tmora\tO\n\n# source\n1\tRio\tB-LOC\n", &["Ana/B-PER mora/O", "Rio/B-LOC"][..]),
        ("1 de de ADP _ _ 0 root _ _\n2 a a DET _ _ 1 det _ _\n", &["de/ADP a/DET"]),
        ("1\tX\tO\n1\tX\tO\n", &["1/O 1/O"]),
        ("1\tO\n2\tO\n", &["1/O 2/O"]),
        ("1\tX\tO\n3\tX\tO\n", &["1/O 3/O"]),
    ] {
        let (sentences, _) = read(text, &ConllFormat::new()).unwrap();
        assert_eq!(shown(&sentences), expected, "{text}");
    }
}

#[test]
fn lines_may_be_comments_or_end_as_on_old_macs() {
    let (sentences, report) = read("# id = 1\nAna B-PER\nri O\n\n# id = 2\n# O\n", &ConllFormat::new()).unwrap();
    assert_eq!(shown(&sentences), ["Ana/B-PER ri/O", "#/O"]);
    assert_eq!(report.to_string(), "2 sentences, 3 words, 2 comment(s), tags in IOB2");
    let (sentences, _) = read("Ana B-PER\rmora O\r\rRio B-LOC", &ConllFormat::new()).unwrap();
    assert_eq!(shown(&sentences), ["Ana/B-PER mora/O", "Rio/B-LOC"]);
    let empty = read("Ana\tO\n\tO\n", &ConllFormat::new()).unwrap_err().to_string();
    assert!(empty.ends_with("a.conll:2: columns: the word is empty"), "{empty}");
}

/// Expected values from `line.split(" ")` or `line.split("\t")`, as the loading scripts of `datasets` divide lines.
#[test]
fn columns_are_divided_by_blanks_and_tabs_alone() {
    for (text, expected) in [
        // A no-break space and an ideographic space inside words.
        (
            "Lei\u{a0}9 B-LEG\nde O\n\nR$\u{a0}5 O\n\u{3000} O\n",
            &["Lei\u{a0}9/B-LEG de/O", "R$\u{a0}5/O \u{3000}/O"][..],
        ),
        ("a\u{a0}b\tO\nc d\tB-X\n", &["a\u{a0}b/O c d/B-X"]),
        // Tabs at the ends of lines of blanks, and of lines of tabs.
        ("Eva N B-PER\t\t\nLuz N I-PER\nri V O \t\n", &["Eva/B-PER Luz/I-PER ri/O"]),
        ("Eva\tB-PER\t\nLuz\tI-PER\nri\tO\t\t\n", &["Eva/B-PER Luz/I-PER ri/O"]),
        ("Eva\tB-PER\t\nLuz\tI-PER\t\n", &["Eva/B-PER Luz/I-PER"]),
        // Tabs in some lines alone.
        ("Eva\tB-PER\nLuz I-PER\nri  O\n", &["Eva/B-PER Luz/I-PER ri/O"]),
        ("Eva  B-PER\nLuz \t I-PER\n", &["Eva/B-PER Luz/I-PER"]),
    ] {
        assert_eq!(shown(&read(text, &ConllFormat::new()).unwrap().0), expected, "{text:?}");
    }
}

#[test]
fn conllu_has_words_and_other_lines() {
    let rest = "_\t_\t0\t_\t_\t_";
    let line = |id: &str, word: &str, tag: &str| format!("{id}\t{word}\t{word}\t{tag}\t{rest}\n");
    let text = [
        "# newdoc\n# text = Vi-o no Rio.\n".to_string(),
        [line("1-2", "no", "_"), line("1", "em", "ADP"), line("2", "os", "DET"), line("2.1", "x", "VERB")].concat(),
        format!("{}\n# text = # 1\n{}{}", line("3", "Rio", "PROPN"), line("1", "#", "SYM"), line("2", "1", "NUM")),
    ]
    .concat();
    let (sentences, report) = read(&text, &ConllFormat::new()).unwrap();
    assert_eq!(shown(&sentences), ["em/ADP os/DET Rio/PROPN", "#/SYM 1/NUM"]);
    assert!(report.to_string().starts_with("2 sentences, 5 words, CoNLL-U, tags in no known scheme"), "{report}");
    let (sentences, _) = read(&text, &ConllFormat::new().word_column(3).tag_column(2)).unwrap();
    assert_eq!(shown(&sentences), ["em/em os/os Rio/Rio", "#/# 1/1"]);

    // Fewer columns are CoNLL-U only if another column than the first has the words.
    let short = "# c\n1-2\tno\t_\n1\tem\tADP\n2\to\tDET\n";
    assert_eq!(shown(&read(short, &ConllFormat::new().word_column(2)).unwrap().0), ["em/ADP o/DET"]);
    let numbers = "1\tO\n2-3\tB-X\n";
    assert_eq!(shown(&read(numbers, &ConllFormat::new()).unwrap().0), ["1/O 2-3/B-X"]);
}

#[test]
fn tags_in_every_notation_become_iob2() {
    for (text, tags) in [
        ("a PER-B\nb PER-I\nc O\nd LOC-B\n", "B-PER I-PER O B-LOC"),
        ("a B_PER\nb I_PER\nc 0\nd B_LOC\n", "B-PER I-PER O B-LOC"),
        ("a b-per\nb i-per\nc o\nd b-loc\n", "B-per I-per O B-loc"),
        ("a B-PER\nb L-PER\nc O\nd U-LOC\n", "B-PER I-PER O B-LOC"),
        ("a PER\nb PER\nc o\nd 0\n", "PER PER O O"),
        ("a BRAND\nb BRAND\nc ORG\nd O\n", "BRAND BRAND ORG O"),
    ] {
        let (sentences, _) = read(text, &ConllFormat::new()).unwrap();
        assert_eq!(sentences[0].tags.join(" "), tags, "{text}");
    }
    let (_, report) = read("a PER\nb o\n", &ConllFormat::new()).unwrap();
    assert_eq!(
        report.to_string(),
        "1 sentences, 2 words, tags in no known scheme (the first is \"PER\" on line 1); 1 tag(s) rewritten"
    );
}

#[test]
fn sentences_with_a_bad_line_are_dropped() {
    let text = "a O\nb B-X\n\nc O\nd\ne f O\n\nf\n\ng B-X\n";
    let (sentences, report) = read(text, &ConllFormat::new().bad_rows(BadRows::Drop)).unwrap();
    assert_eq!(shown(&sentences), ["a/O b/B-X", "g/B-X"]);
    assert_eq!((report.sentences, report.words, report.dropped.total()), (2, 3, 2));
    let why = "; 2 sentence(s) dropped, the first because of line 5: found 1, but line 1 has 2";
    assert!(report.to_string().ends_with(why), "{report}");
    let error = read(text, &ConllFormat::new().bad_rows(BadRows::Fail)).unwrap_err().to_string();
    assert_eq!(error, "a.conll:5: columns: found 1, but line 1 has 2");
}

#[test]
fn errors_name_the_line() {
    let said = |text: &str, format: ConllFormat| read(text, &format).unwrap_err().to_string();
    let format = ConllFormat::new;
    for (text, format, what) in [
        ("", format(), "a.conll: sentences: the file has none"),
        (" \n\t\n-DOCSTART- O\n", format(), "a.conll: sentences: the file has none"),
        ("a\tO\nb\n", format(), "a.conll:2: columns: found 1, but line 1 has 2"),
        ("\na O\nb c O\n", format(), "a.conll:3: columns: found 3, but line 2 has 2"),
        ("a\n", format(), "a.conll:1: columns: found only \"a\", expected a word and a tag"),
        ("a\tO\nb\t\n", format(), "a.conll:2: columns: the tag is empty"),
        ("a O\n", format().tag_column(3), "a.conll:1: columns: column 3 is missing: the line has 2"),
        ("a O\n", format().word_column(9), "a.conll:1: columns: column 9 is missing: the line has 2"),
        ("a O\n", format().word_column(0), "word column is 0, must be at least 1: columns are counted from 1"),
    ] {
        assert_eq!(said(text, format), what);
    }
    let missing = read_conll("no/such.conll", &format()).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.conll: cannot read"), "{missing}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([ab] (O|B-X|I-X|E-X)\n|\n|\t|O|-DOCSTART-| ){0,12}") {
        if let Ok((sentences, report)) = read(&text, &ConllFormat::new()) {
            prop_assert_eq!(report.sentences, sentences.len());
            prop_assert_eq!(report.words, sentences.iter().map(|s| s.words.len()).sum::<usize>());
            prop_assert!(sentences.iter().all(|s| !s.words.is_empty() && s.words.len() == s.tags.len()));
            let again = DetectedScheme::of(&sentences.iter().map(|s| &s.tags).collect::<Vec<_>>());
            prop_assert!(again.scheme.is_none() || again.irregular.is_empty());
        }
    }
}
