//! The words that answers are completed to are those of the tokenizers of transformers.

use std::fs;

use cloze::prelude::*;

use crate::Result;
use crate::python::Python;

#[test]
fn answers_are_completed_to_the_same_words() -> Result {
    let Some(python) = Python::of("answers_are_completed_to_the_same_words") else { return Ok(()) };
    let pairs = [
        ("Who discovered Brazil?", "Pedro Álvares Cabral discovered Brazil in 1500: naïve guarda-chuvas."),
        ("Quem?", "Jose\u{301} e A\u{327}na\u{303} 👩‍🚀, 漢字 🇧🇷unbelievable; \u{301}x e\u{301}\u{301}"),
        ("[MASK]?", "a [MASK]b, [SEP]c 12½ ﬁn\u{200d}e\u{ad}d"),
    ];
    let sentences = ["The cat sat on the mat.", "Pedro Alvares 漢 naive", "e a ana jose bc fined 12"];
    for options in [TokenizerOptions::uncased(), TokenizerOptions::cased()] {
        let tokenizer = Tokenizer::train(sentences, 120, &options.into())?;
        let dir = tempfile::tempdir()?;
        let (file, folder) = (dir.path().join("pairs.json"), dir.path().join("tokenizer"));
        fs::write(&file, serde_json::to_string(&pairs)?)?;
        tokenizer.save(&folder)?;
        python.run("whole_words.py", &[&file, &folder])?;
        let theirs: Vec<Vec<(usize, usize)>> = serde_json::from_str(&fs::read_to_string(&file)?)?;

        let config = BertConfig::tiny(tokenizer.vocab_size());
        let model = BertForQuestionAnswering::new(&config, &Device::Cpu, 1)?;
        let pipeline = QuestionAnswering::new(model, tokenizer)?.max_answer_length(999);
        for ((question, context), theirs) in pairs.iter().zip(theirs) {
            let answers = pipeline.top_k(question, context, usize::MAX)?;
            let mut ours: Vec<(usize, usize)> = answers.iter().map(|answer| (answer.start, answer.end)).collect();
            ours.sort_unstable();
            assert_eq!(ours, theirs, "{context}");
            assert!((answers.iter().map(|answer| answer.probability).sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
    Ok(())
}
