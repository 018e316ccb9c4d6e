//! Texts of more tokens than the 64 that fit: cut, refused, or read in windows that are computed by hand here.

use cloze_bert::{EncodeOptions, LongText, Truncation};

use super::*;

/// More than 64 tokens.
fn long() -> String {
    [TEXTS.join(" "), "it barked at a mat".into(), TEXTS.join(" ")].join(" ")
}

/// Returns a text of this many tokens, special tokens included.
fn of_length(tokens: usize) -> String {
    ["cat", "dog", "mat"].into_iter().cycle().take(tokens - 2).collect::<Vec<_>>().join(" ")
}

fn windows(text: &str, second: Option<&str>, truncation: Truncation, stride: usize) -> Result<Vec<Encoding>> {
    let options = EncodeOptions::new().max_length(64).truncation(truncation).stride(stride);
    let mut first = tokenizer()?.encode_with(text, second, &options)?;
    let others = std::mem::take(&mut first.overflowing);
    assert!(!others.is_empty(), "the text is not long");
    Ok([vec![first], others].concat())
}

/// Computes the mean of rows, each with its weight.
fn mean(rows: &[(Vec<f32>, usize)]) -> Vec<f32> {
    let weights: usize = rows.iter().map(|(_, weight)| weight).sum();
    let column = |c: usize| rows.iter().map(|(row, weight)| row[c] * *weight as f32).sum::<f32>() / weights as f32;
    (0..rows[0].0.len()).map(column).collect()
}

fn all_near(found: &[f64], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(a, b)| assert!((a - f64::from(*b)).abs() < 1e-6, "{a} against {b}"));
}

fn said<T>(answer: cloze_bert::Result<T>) -> String {
    answer.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn classes_are_those_of_the_mean_logits() -> Result {
    let model = model::<BertForSequenceClassification>(3, 7)?;
    let classifier = |long_texts: LongText| -> Result<TextClassification> {
        Ok(TextClassification::new(model.clone(), tokenizer()?)?.long_texts(long_texts))
    };
    let expected = |windows: &[Encoding], shared: usize| -> Result<Vec<f32>> {
        let row = |window: &Encoding| -> Result<(Vec<f32>, usize)> {
            Ok((model.forward(&one(window)?, Mode::Eval)?.to_vec()?, window.len() - shared))
        };
        let rows = windows.iter().map(row).collect::<Result<Vec<_>>>()?;
        softmax(&Tensor::from_vec(mean(&rows), &[1, 3], &Device::Cpu)?)
    };
    let text = long();
    for (long_texts, stride) in [(LongText::Windows, 15), (LongText::WindowsWithStride(40), 40)] {
        let found = classifier(long_texts)?.classify(&["a cat", &text])?;
        let windows = windows(&text, None, Truncation::LongestFirst, stride)?;
        all_near(&found[1].scores, &expected(&windows, 2)?);
        all_near(&found[0].scores, &softmax(&model.forward(&one(&tokenizer()?.encode("a cat")?)?, Mode::Eval)?)?);
        assert_eq!((&found.report.cut, &found.report.windows), (&vec![0, 0], &vec![1, windows.len()]));
    }
    // The longer text of a pair is read in windows, whichever it is.
    let (short, tokens) = ("the cat sat", tokenizer()?.ids("the cat sat")?.len());
    for (pair, truncation) in
        [((text.as_str(), short), Truncation::OnlyFirst), ((short, &text), Truncation::OnlySecond)]
    {
        let found = classifier(LongText::Windows)?.classify_pairs(&[pair])?;
        let windows = windows(pair.0, Some(pair.1), truncation, (61 - tokens) / 4)?;
        all_near(&found[0].scores, &expected(&windows, 3 + tokens)?);
        assert_eq!(found.report.windows, [windows.len()]);
    }
    let refused = said(classifier(LongText::Windows)?.classify_pairs(&[("a", "b"), (&text, &text)]));
    assert!(
        refused.starts_with("text 1: no room is left for windows: the special tokens and the shorter"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn scores_of_pairs_are_those_of_the_mean_logits() -> Result {
    let (text, short, tokens) = (long(), "the cat sat", tokenizer()?.ids("the cat sat")?.len());
    let windows = windows(short, Some(&text), Truncation::OnlySecond, 9)?;
    let rows = |forward: &dyn Fn(&Batch) -> cloze_bert::Result<Tensor>| -> Result<Vec<f32>> {
        let row = |window: &Encoding| -> Result<(Vec<f32>, usize)> {
            Ok((forward(&one(window)?)?.to_vec()?, window.len() - 3 - tokens))
        };
        Ok(mean(&windows.iter().map(row).collect::<Result<Vec<_>>>()?))
    };

    let model_ = model::<BertForSequenceClassification>(1, 7)?;
    let cross = CrossEncoder::new(model_.clone(), tokenizer()?)?.long_texts(LongText::WindowsWithStride(9));
    let found = cross.predict(&[(short, &text)])?;
    let logits = rows(&|batch| model_.forward(batch, Mode::Eval))?;
    all_near(&found[0], &[1.0 / (1.0 + (-logits[0]).exp())]);
    let ranked = cross.rank(short, &["a cat", &text], 2)?;
    assert_eq!(ranked.report.windows, [1, windows.len()], "the report has the order of the documents");
    let of_long = ranked.iter().find(|(document, _)| *document == 1).ok_or("it is missing")?;
    assert!((of_long.1 - found[0][0]).abs() < 1e-6);

    let model = model::<BertForNextSentencePrediction>(2, 3)?;
    let next = NextSentence::new(model.clone(), tokenizer()?)?.long_texts(LongText::WindowsWithStride(9));
    let logits = rows(&|batch| model.forward(batch, Mode::Eval))?;
    let expected = softmax(&Tensor::from_vec(logits, &[1, 2], &Device::Cpu)?)?;
    all_near(&[*next.probability(short, &text)?], &expected[..1]);
    Ok(())
}

/// Every window has the prompt again, and the mean of vectors of norm 1 is normalised.
#[test]
fn vectors_are_means_of_windows() -> Result {
    let (tokenizer, text) = (tokenizer()?, long());
    for (prompt, normalize) in [("", false), ("", true), ("the dog: ", false), ("the dog: ", true)] {
        let encoder = model::<SentenceEncoder>(2, 6)?.normalized(normalize).with_prompt("query", prompt);
        let shared = tokenizer.ids(prompt)?;
        let ids = tokenizer.ids(&text)?;
        let (room, mut rows, mut start) = (62 - shared.len(), Vec::new(), 0);
        loop {
            let end = ids.len().min(start + room);
            let window = [&[tokenizer.cls_id()], &shared[..], &ids[start..end], &[tokenizer.sep_id()]].concat();
            let types = vec![0; window.len()];
            let vector = encoder.forward(&Batch::new(&[(window, types)])?, Mode::Eval)?.to_vec::<f32>()?;
            rows.push((vector, end - start));
            if end == ids.len() {
                break;
            }
            start = end - room / 4;
        }
        assert!(rows.len() > 1);
        let mut expected = mean(&rows);
        let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
        if normalize {
            expected.iter_mut().for_each(|x| *x /= norm);
        }
        let embedder = SentenceEmbedder::new(encoder.clone(), tokenizer.clone())?.long_texts(LongText::Windows);
        let found = embedder.query(&[&text, "a cat"])?;
        all_near(&found[0].iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), &expected);
        assert_eq!((&found.report.windows, &found.report.cut), (&vec![rows.len(), 1], &vec![0, 0]));

        let similarity = Similarity::new(encoder, tokenizer.clone())?.long_texts(LongText::Windows);
        let found = similarity.most_similar("a cat", &[&text, "a cat"], 2)?;
        assert_eq!((found.report.windows[1] > 1, found.report.windows[2], found[0].0), (true, 1, 1));
    }
    Ok(())
}

#[test]
fn what_is_cut_is_reported() -> Result {
    let lengths = [64, 65, 3, 80];
    let texts = lengths.map(of_length);
    let texts = texts.each_ref().map(String::as_str);
    let cut = vec![0, 1, 0, 16];
    let classifier = TextClassification::new(model(2, 1)?, tokenizer()?)?;
    let found = classifier.classify(&texts)?;
    assert_eq!((&found.report.cut, found.report.max_length), (&cut, 64));
    assert_eq!(found.report.to_string(), "2 of 4 texts did not fit in 64 tokens: 17 tokens were cut");
    assert_eq!(found[1].scores, classifier.classify(&[&of_length(64)])?[0].scores);
    assert!(classifier.classify(&texts[..1])?.report.all_fit());
    // One token more in a pair: of the longer text.
    let found = classifier.classify_pairs(&[("cat dog", &of_length(62)), ("cat dog mat", &of_length(62))])?;
    assert_eq!(found.report.cut, [1, 2]);

    let embedder = SentenceEmbedder::new(model(2, 1)?, tokenizer()?)?;
    assert_eq!(embedder.embed(&texts)?.report.cut, cut);
    assert_eq!(Similarity::new(model(2, 1)?, tokenizer()?)?.matrix(&texts[..1], &texts[1..])?.report.cut, cut);
    let pairs = texts.map(|text| ("", text));
    let cut = vec![1, 2, 0, 17];
    assert_eq!(CrossEncoder::new(model(1, 1)?, tokenizer()?)?.predict(&pairs)?.report.cut, cut);
    assert_eq!(CrossEncoder::new(model(1, 1)?, tokenizer()?)?.rank("", &texts, 1)?.report.cut, cut);
    let next = NextSentence::new(model(2, 1)?, tokenizer()?)?.probability("cat", &of_length(80))?;
    assert_eq!(next.report.cut, [18]);

    // Words that are cut have no label.
    let words = TokenClassification::new(model(2, 1)?, tokenizer()?)?;
    let found = words.words(&texts)?;
    assert_eq!((found.iter().map(Vec::len).collect::<Vec<_>>(), found.report.cut), (vec![62, 63, 1, 78], vec![0; 4]));
    let found = words.long_texts(LongText::Truncate).words(&texts)?;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [62, 62, 1, 62]);
    assert_eq!(found.report.cut, [0, 1, 0, 16]);
    Ok(())
}

/// Also words in pieces, which a window may split.
#[test]
fn every_word_is_labelled_once_whatever_the_stride() -> Result {
    let text = [long().as_str(), "cated unsaid matsat", &long()].join(" ");
    let places = |max_length: usize, long_texts: LongText| -> Result<Vec<(usize, usize)>> {
        let pipeline = TokenClassification::new(model(2, 1)?, tokenizer()?.with_max_length(max_length))?;
        let words = pipeline.long_texts(long_texts).words(&[&text])?;
        Ok(words[0].iter().map(|word| (word.start, word.end)).collect())
    };
    let expected = places(64, LongText::Windows)?;
    assert_eq!(expected.last().map(|word| word.1), Some(text.chars().count()));
    for stride in 0..10 {
        assert_eq!(places(12, LongText::WindowsWithStride(stride))?, expected, "stride {stride}");
    }
    Ok(())
}

#[test]
fn long_texts_are_refused_by_name() -> Result {
    let expected = "text 1 has 65 tokens with its special tokens, 64 fit: shorten it, or choose to truncate it or to read \
                    it in windows";
    let (fits, long) = (of_length(64), of_length(65));
    let texts = [fits.as_str(), &long];
    let refuse = LongText::Refuse;
    let classifier = TextClassification::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse);
    assert_eq!(said(classifier.classify(&texts)), expected);
    assert_eq!(classifier.classify(&texts[..1])?.len(), 1);
    assert_eq!(said(TokenClassification::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse).words(&texts)), expected);
    assert_eq!(said(SentenceEmbedder::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse).embed(&texts)), expected);
    assert_eq!(said(Similarity::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse).score(&fits, &long)), expected);
    let pairs = [("", of_length(63)), ("", of_length(64))];
    let pairs = pairs.each_ref().map(|(a, b)| (*a, b.as_str()));
    assert_eq!(said(CrossEncoder::new(model(1, 1)?, tokenizer()?)?.long_texts(refuse).predict(&pairs)), expected);
    let next = NextSentence::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse);
    assert_eq!(said(next.probabilities(&[("cat", "dog"), ("cat", &of_length(63))])), expected);
    let masked = [format!("[MASK] {}", of_length(63)), format!("[MASK] {}", of_length(64))];
    let fill = FillMask::new(model(2, 1)?, tokenizer()?)?.long_texts(refuse);
    assert_eq!(said(fill.fill(&[&masked[0], &masked[1]], 1)), expected);
    Ok(())
}

#[test]
fn windows_without_room_are_refused() -> Result {
    // Also if no text is long: the caller finds out at once.
    let strided = |stride| -> Result<TextClassification> {
        Ok(TextClassification::new(model(2, 1)?, tokenizer()?)?.long_texts(LongText::WindowsWithStride(stride)))
    };
    let expected = "the stride of the windows is 62: must be below 62, the number of tokens that fit in one";
    assert_eq!(said(strided(62)?.classify(&["a cat"])), expected);
    assert_eq!(strided(61)?.classify(&[&of_length(66)])?.report.windows, [3]);
    // The first text of this pair leaves 10 tokens for the second.
    let pair = (of_length(53), of_length(80));
    let expected = "text 0: the stride of the windows is 10: must be below 10, the number of tokens that fit in one";
    assert_eq!(said(strided(10)?.classify_pairs(&[(&pair.0, &pair.1)])), expected);
    assert!(strided(9)?.classify_pairs(&[(&pair.0, &pair.1)])?.report.windows[0] > 50);

    let prompt = of_length(64) + " ";
    for long_texts in [LongText::Refuse, LongText::Windows] {
        let encoder = model::<SentenceEncoder>(2, 6)?.with_prompt("query", &prompt);
        let embedder = SentenceEmbedder::new(encoder, tokenizer()?)?;
        // As in `sentence-transformers`, truncation leaves only the prompt.
        assert_eq!(*embedder.query(&["a cat"])?, *embedder.query(&["a dog"])?);
        let embedder = embedder.long_texts(long_texts);
        let expected = "text 0: the prompt has 62 tokens: it leaves no room for a text, 64 fit with 2 special tokens";
        assert_eq!(said(embedder.query(&["a cat"])), expected);
        assert!(embedder.document(&["a cat", ""])?.report.all_fit());
    }
    // A limit that leaves no room for any text.
    let tiny = TextClassification::new(model(2, 1)?, tokenizer()?.with_max_length(2))?;
    assert_eq!(said(tiny.classify(&["cat"])), "text 0 has no tokens: it has no room among the 2 tokens that fit");
    Ok(())
}

#[test]
fn masks_are_predicted_where_they_have_most_context() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForMaskedLM>(2, 2)?);
    let fill = FillMask::new(model.clone(), tokenizer.clone())?;
    // The second and the third mask are in the first two windows, one nearer to the middle of each.
    let text = ["[MASK]", &of_length(52), "[MASK]", &of_length(9), "[MASK]", &of_length(60), "the [MASK]"].join(" ");
    let whole = tokenizer.encode_with(&text, None, &EncodeOptions::new().max_length(500))?;
    let found = fill.fill(&["a [MASK]", &text], 3)?;
    let windows = windows(&text, None, Truncation::OnlyFirst, 15)?;
    assert_eq!((found[1].len(), found.report.windows[1]), (4, windows.len()));
    for mask in &found[1] {
        assert_eq!(whole.ids[mask.position], tokenizer.mask_id());
        // The windows that have the mask, with the distance to their nearer end.
        let with_mask = windows.iter().filter_map(|window| {
            let at = window.offsets.iter().position(|span| *span == whole.offsets[mask.position])?;
            Some((at.min(window.len() - 1 - at), at, window))
        });
        let (_, at, window) = with_mask.max_by_key(|(margin, ..)| *margin).ok_or("no window has it")?;
        let expected = softmax(&model.forward(&one(window)?, &[at as u32], Mode::Eval)?)?;
        mask.guesses.iter().for_each(|guess| near(guess.probability, expected[guess.id as usize]));
    }
    assert_eq!(found[0], fill.fill(&["a [MASK]"], 3)?[0]);

    // Masks of a pair, of which the second text is long.
    let second = [&of_length(70), "[MASK]"].join(" ");
    let pair = fill.fill_pairs(&[("a [MASK]", &second)], 1)?;
    let whole = tokenizer.encode_with("a [MASK]", Some(&second), &EncodeOptions::new().max_length(500))?;
    let masks: Vec<usize> = (0..whole.len()).filter(|&at| whole.ids[at] == tokenizer.mask_id()).collect();
    assert_eq!(pair[0].iter().map(|mask| mask.position).collect::<Vec<_>>(), masks);

    // A mask must not be cut; other tokens may be.
    let fill = fill.long_texts(LongText::Truncate);
    let expected = "text 1: its [MASK] at position 70 is cut: read the text in windows, or shorten it";
    let cut = [&of_length(71), "[MASK]", &of_length(5)].join(" ");
    assert_eq!(said(fill.fill(&["a [MASK]", &cut], 1)), expected);
    let kept = fill.top_k(&["[MASK]", &of_length(71)].join(" "), 1)?;
    assert_eq!((kept.len(), kept.report.cut.as_slice()), (1, [8].as_slice()));
    Ok(())
}
