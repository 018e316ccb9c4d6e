//! Long texts take little more memory than their answer: windows are made when the model comes to them.

#[path = "../../tensor/tests/files/memory.rs"]
mod memory;

use cloze_bert::{
    BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForTokenClassification, EncodeOptions, FillMask,
    Pipeline, PreTrainedModel, QuestionAnswering, SentenceEmbedder, SentenceEncoder, TokenClassification, Tokenizer,
    TrainOptions, Truncation,
};
use cloze_tensor::Device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::train(["the cat sat on the mat"], 40, &TrainOptions::new())?)
}

fn model<M: PreTrainedModel>() -> Result<M> {
    Ok(M::new(&BertConfig::tiny(tokenizer()?.vocab_size()), &Device::Cpu, 1)?)
}

/// Windows over a text are those of `encode_with`, and only a few thousand tokens are in memory.
#[test]
fn windows_are_made_one_by_one() -> Result {
    let (tokenizer, text) = (tokenizer()?, "the cat sat on the mat ".repeat(1 << 14));
    for (question, stride) in [("cat", 0), ("a cat sat", 40)] {
        let options = EncodeOptions::new().max_length(64).truncation(Truncation::OnlySecond).stride(stride);
        let mut whole = tokenizer.encode_with(question, Some(&text), &options)?;
        let others = std::mem::take(&mut whole.overflowing);
        let (count, most) = memory::peak(|| tokenizer.windows(question, Some(&text), &options).map(Iterator::count));
        assert_eq!(count?, 1 + others.len());
        assert!(tokenizer.windows(question, Some(&text), &options)?.eq([vec![whole], others].concat()));
        let (last, read) = memory::peak(|| tokenizer.windows(question, Some(&text), &options).map(Iterator::last));
        assert!(last?.is_some());
        assert!(most.max(read) < 4 << 20, "{most} and {read} bytes for a text of {}", text.len());
    }
    Ok(())
}

/// A text without blanks is cut at punctuation marks and Chinese characters, and a word that no vocabulary knows is not taken apart.
#[test]
fn texts_without_blanks_are_read_in_parts() -> Result {
    let (tokenizer, length) = (tokenizer()?, 1 << 20);
    for unit in ["cat,", "\u{6f22}", "\u{3042}\u{3044}\u{3001}", "a", "\u{3042}", "\u{1}", "e\u{301}"] {
        let text = unit.repeat(length / unit.len());
        let options = EncodeOptions::new().max_length(64).truncation(Truncation::OnlyFirst);
        let (encoding, most) = memory::peak(|| tokenizer.encode_with(&text, None, &options));
        let (count, read) = memory::peak(|| tokenizer.windows(&text, None, &options).map(Iterator::count));
        assert!(encoding?.len() <= 64 && count? >= 1);
        assert!(most.max(read) < 4 << 20, "{most} and {read} bytes for a text of {length} of {unit:?}");
    }
    Ok(())
}

/// The only mask is predicted in one window, wherever it is.
#[test]
fn a_mask_in_a_long_text_needs_no_other_window() -> Result {
    let fill = FillMask::new(model::<BertForMaskedLM>()?, tokenizer()?)?;
    let text = ["the cat sat on the mat ".repeat(1 << 14), "the [MASK] sat".into()].concat();
    let (found, most) = memory::peak(|| fill.top_k(&text, 2));
    let found = found?;
    assert_eq!((found.len(), found.report.windows[0] > 100), (2, true));
    assert!(most < 4 << 20, "{most} bytes for a text of {}", text.len());
    Ok(())
}

/// Only the answer grows with the text.
#[test]
fn long_texts_take_little_more_than_their_answers() -> Result {
    let of_length = |repeats: usize| "the cat sat on the mat ".repeat(repeats);
    let (short, long) = (of_length(1 << 9), of_length(1 << 11));
    let tokens = tokenizer()?.ids(&long)?.len() - tokenizer()?.ids(&short)?.len();
    let check = |name: &str, per_token: usize, run: &dyn Fn(&str) -> Result| -> Result {
        let [(first, short), (second, long)] = [&short, &long].map(|text| memory::peak(|| run(text)));
        first.and(second)?;
        let grown = long.saturating_sub(short);
        assert!(grown < per_token * tokens, "{name}: {grown} bytes more for {tokens} tokens");
        Ok(())
    };
    let answers = QuestionAnswering::new(model::<BertForQuestionAnswering>()?, tokenizer()?)?;
    check("answers", 8, &|text| Ok(answers.answer("the cat", text).map(drop)?))?;
    let embedder = SentenceEmbedder::new(model::<SentenceEncoder>()?, tokenizer()?)?;
    let embedder = embedder.long_texts(cloze_bert::LongText::Windows);
    check("embeddings", 8, &|text| Ok(embedder.embed(&[text]).map(drop)?))?;
    // A word with its label, and the copies while the vector of words grows.
    let words = TokenClassification::new(model::<BertForTokenClassification>()?, tokenizer()?)?;
    check("words", 400, &|text| Ok(words.words(&[text]).map(drop)?))?;
    let config = BertConfig::tiny(tokenizer()?.vocab_size()).with_labels(["O"].map(String::from));
    let model = BertForTokenClassification::new(&config, &Device::Cpu, 1)?;
    let entities = TokenClassification::new(model, tokenizer()?)?;
    // There are no entities here. The peak still varies a little, with how full the batch is when the next part is encoded.
    check("entities", 50, &|text| Ok(entities.entities(&[text]).map(drop)?))?;
    Ok(())
}
