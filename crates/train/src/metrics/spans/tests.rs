//! Tests of the spans and their scores against seqeval.

use super::super::test_stream::Lcg;
use super::*;

fn tags(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// Returns predictions and labels for 200 sentences of 1 to 9 random tags. Three in ten predictions are random.
fn sentences(letters: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let letters: Vec<char> = letters.chars().collect();
    let mut random = Lcg(7);
    let tag = |random: &mut Lcg| {
        let (letter, kind) = (letters[random.below(letters.len())], ["X", "Y", "Z"][random.below(3)]);
        if letter == 'O' { "O".to_string() } else { format!("{letter}-{kind}") }
    };
    let (mut predictions, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let length = 1 + random.below(9);
        let label: Vec<String> = (0..length).map(|_| tag(&mut random)).collect();
        let mut predict = |label: &String| {
            let other = tag(&mut random);
            if random.below(10) < 7 { label.clone() } else { other }
        };
        predictions.push(label.iter().map(&mut predict).collect());
        labels.push(label);
    }
    (predictions, labels)
}

/// Precision, recall and F1 of X, Y, Z, micro, macro and weighted average; then the supports of X, Y and Z.
type Expected = ([[f64; 3]; 6], [usize; 3]);

/// The letters that tags are made of, and the expected scores from seqeval 1.2.2:
/// `classification_report(labels, predictions, output_dict=True, zero_division=0)`, strict modes with
/// `mode="strict", scheme=IOB2` or `IOBES`.
const SEQEVAL: [(&str, SpanMode, Expected); 4] = [
    (
        "OBI",
        SpanMode::Lenient,
        (
            [
                [0.7184466019417476, 0.6915887850467289, 0.7047619047619048],
                [0.7415730337078652, 0.7021276595744681, 0.7213114754098361],
                [0.663594470046083, 0.7024390243902439, 0.6824644549763034],
                [0.7054908485856906, 0.6985172981878089, 0.7019867549668874],
                [0.7078713685652319, 0.6987184896704802, 0.702845945049348],
                [0.7070842990313997, 0.6985172981878089, 0.702357196484743],
            ],
            [214, 188, 205],
        ),
    ),
    (
        "OBIES",
        SpanMode::Lenient,
        (
            [
                [0.751937984496124, 0.7432950191570882, 0.7475915221579961],
                [0.7869565217391304, 0.70703125, 0.7448559670781892],
                [0.7148014440433214, 0.7471698113207547, 0.7306273062730627],
                [0.7490196078431373, 0.7327365728900256, 0.7407886231415642],
                [0.7512319834261919, 0.7324986934926142, 0.7410249318364159],
                [0.7508172201920535, 0.7327365728900256, 0.7409472519406841],
            ],
            [261, 256, 265],
        ),
    ),
    (
        "OBI",
        SpanMode::StrictIob2,
        (
            [
                [0.7346938775510204, 0.6666666666666666, 0.6990291262135923],
                [0.6923076923076923, 0.65625, 0.6737967914438503],
                [0.6310679611650486, 0.6989247311827957, 0.663265306122449],
                [0.684931506849315, 0.6734006734006734, 0.6791171477079796],
                [0.6860231770079205, 0.6739471326164873, 0.6786970745932973],
                [0.6885447731494888, 0.6734006734006734, 0.6796744480776612],
            ],
            [108, 96, 93],
        ),
    ),
    (
        "OBIES",
        SpanMode::StrictBioes,
        (
            [
                [0.734375, 0.6438356164383562, 0.6861313868613139],
                [0.660377358490566, 0.5223880597014925, 0.5833333333333333],
                [0.6470588235294118, 0.7457627118644068, 0.6929133858267716],
                [0.6810810810810811, 0.6331658291457286, 0.65625],
                [0.6806037273399926, 0.6373287960014185, 0.654126035340473],
                [0.6835735105884584, 0.6331658291457286, 0.6535317303416521],
            ],
            [73, 67, 59],
        ),
    ),
];

#[test]
fn as_seqeval() {
    for (letters, mode, (numbers, supports)) in SEQEVAL {
        let (predictions, labels) = sentences(letters);
        let found = span_scores(&predictions, &labels, mode).unwrap();
        let kinds: Vec<&PrecisionRecall> = found.by_kind.values().collect();
        assert_eq!(kinds.iter().map(|kind| kind.support).collect::<Vec<_>>(), supports);
        let averages = [&found.micro, &found.macro_average, &found.weighted];
        assert!(averages.iter().all(|average| average.support == supports.iter().sum::<usize>()));
        for (found, expected) in kinds.into_iter().chain(averages).zip(numbers) {
            let close =
                [found.precision, found.recall, found.f1].into_iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close, "{letters} {mode:?}: {found:?}, not {expected:?}");
        }
    }
}

#[test]
fn spans_by_mode() {
    let found = |text: &str, mode| {
        let spans = spans(&tags(text), mode).unwrap().into_iter();
        spans.map(|TagSpan { start, end, kind }| format!("{start}..{end} {kind}")).collect::<Vec<_>>()
    };
    let text = "I-X I-X O B-Y I-Z I-Z B-Z";
    assert_eq!(found(text, SpanMode::Lenient), ["0..2 X", "3..4 Y", "4..6 Z", "6..7 Z"]);
    assert_eq!(found(text, SpanMode::StrictIob2), ["3..4 Y", "6..7 Z"]);
    let text = "B-X E-X B-X O S-X E-Y B-X I-X B-X E-X I-X";
    assert_eq!(found(text, SpanMode::StrictBioes), ["0..2 X", "4..5 X", "8..10 X"]);
    assert_eq!(found("NOUN NOUN VERB O", SpanMode::Lenient), ["0..2 NOUN", "2..3 VERB"]);
}

/// Expected values from `get_entities` and `f1_score(.., average="micro")` of seqeval 1.2.2.
#[test]
fn exactly_as_seqeval_for_any_tag() {
    let found = |text: &str| {
        let spans = spans(&tags(text), SpanMode::Seqeval).unwrap().into_iter();
        spans.map(|TagSpan { start, end, kind }| format!("{start}..{end} {kind}")).collect::<Vec<_>>().join(", ")
    };
    for (text, expected) in [
        ("ORG ORG O", ""),
        ("BRAND BRAND LOC", "0..1 RAND, 1..2 RAND, 2..3 OC"),
        ("B-X L-X U-X O", "0..3 X"),
        ("I-X . I-X E-X E-X", "0..1 X, 2..4 X, 4..5 X"),
        ("B I E S X X", "0..3 _, 3..4 _"),
        ("B_P I_P O", "0..2 _P"),
        ("PER-B PER-I O", "0..1 B, 1..2 I"),
        ("b-p i-p o", "0..2 p"),
        ("B- I- é-x é-x", "0..2 _, 2..4 x"),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
    let f1 = |predicted: &str, labels: &str, mode| {
        let of = |text: &str| text.split('|').map(tags).collect::<Vec<_>>();
        span_scores(&of(predicted), &of(labels), mode).unwrap().micro.f1
    };
    let plain = ("ORG O|BRAND O", "ORG O|BRAND BRAND");
    assert_eq!(f1(plain.0, plain.1, SpanMode::Seqeval), 2.0 / 3.0);
    assert_eq!(f1(plain.0, plain.1, SpanMode::Lenient), 0.5);
    // Seqeval joins the sentences: the `X` of the second begins no span.
    assert_eq!(f1("B|X B-Y", "B|X B-Y", SpanMode::Seqeval), 1.0);
}

/// The prediction cuts one of two names: F1 is 0.5, as seqeval has it for `B-PER` (and with `suffix=True`).
#[test]
fn every_notation_has_the_same_scores() {
    for (predicted, labels) in [
        ("B-PER O O B-LOC", "B-PER I-PER O B-LOC"),
        ("B_PER O O B_LOC", "B_PER I_PER O B_LOC"),
        ("b-per o o b-loc", "b-per i-per o b-loc"),
        ("PER-B O O LOC-B", "PER-B PER-I O LOC-B"),
        ("U-PER O O U-LOC", "B-PER L-PER O U-LOC"),
        ("PER 0 0 LOC", "PER PER 0 LOC"),
    ] {
        let found = span_scores(&[tags(predicted)], &[tags(labels)], SpanMode::Lenient).unwrap();
        assert_eq!((found.micro.f1, found.micro.support, found.by_kind.len()), (0.5, 2, 2), "{labels}");
    }
    let nothing = span_scores(&[tags("o 0 O")], &[tags("o 0 O")], SpanMode::Lenient).unwrap();
    assert_eq!(nothing.micro.support, 0);
}

#[test]
fn nothing_to_divide_by_is_zero() {
    let none = span_scores(&[tags("O O")], &[tags("O O")], SpanMode::Lenient).unwrap();
    assert_eq!(
        (none.by_kind.len(), none.micro, none.weighted),
        (0, PrecisionRecall::default(), PrecisionRecall::default())
    );
    let missed = span_scores(&[tags("O B-Y")], &[tags("B-X O")], SpanMode::Lenient).unwrap();
    assert_eq!((missed.micro.f1, missed.by_kind["X"].support, missed.by_kind["Y"].support), (0.0, 1, 0));
}

#[test]
fn errors_name_the_sentence() {
    let said = |predictions: &[&str], labels: &[&str], mode| {
        let of = |texts: &[&str]| texts.iter().map(|text| tags(text)).collect::<Vec<_>>();
        span_scores(&of(predictions), &of(labels), mode).unwrap_err().to_string()
    };
    assert_eq!(said(&[], &[], SpanMode::Lenient), "metric: no predictions");
    let uneven = "metric: the number of predictions (1) differs from the number of labels (0)";
    assert_eq!(said(&["O"], &[], SpanMode::Lenient), uneven);
    assert_eq!(said(&["O", "O"], &["O", "O O"], SpanMode::Lenient), "metric: sentence 1: 1 predicted tags for 2 words");
    let why = "metric: sentence 1: tags: tag \"E-X\" of word 1 does not belong to IOB2 (O, B-, I-)";
    assert_eq!(said(&["O", "B-X E-X"], &["O", "O O"], SpanMode::StrictIob2), why);
    let why = "metric: sentence 0: tags: tag \"NOUN\" of word 0 does not belong to BIOES (O, B-, I-, E-, S-)";
    assert_eq!(said(&["NOUN"], &["O"], SpanMode::StrictBioes), why);
}
