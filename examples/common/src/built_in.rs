//! Built-in data: a small corpus, sentences with invented names, and questions about invented voyages.

use std::path::{Path, PathBuf};

use cloze::prelude::*;
use cloze::tensor::random::Stream;
use cloze::train::{AnswerSpan, QuestionExample, Result, TaggedSentence};

const MINI_CORPUS: &str = include_str!("../../data/mini-corpus.txt");

/// Returns small documents in English and Portuguese, the corpus that `models/tiny` was trained on.
///
/// # Errors
/// Returns an error if the corpus is empty, which it is not.
pub fn mini_corpus() -> Result<Corpus> {
    let documents = MINI_CORPUS.split("\n\n").map(|document| document.lines().map(str::to_string).collect());
    Corpus::from_documents(documents.collect())
}

/// Writes these documents to a file in `folder`, a sentence per line. Returns its path.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn mini_corpus_file(folder: &Path) -> std::io::Result<PathBuf> {
    let path = folder.join("mini-corpus.txt");
    std::fs::write(&path, MINI_CORPUS)?;
    Ok(path)
}

/// Returns six documents of 60 sentences of random words, so that batches are large enough to occupy several threads.
///
/// # Errors
/// Returns an error if the corpus is empty, which it is not.
pub fn random_corpus() -> Result<Corpus> {
    let mut stream = Stream::seeded(1);
    let mut sentence = || (0..12).map(|_| format!("w{}", stream.below(300))).collect::<Vec<_>>().join(" ");
    Corpus::from_documents((0..6).map(|_| (0..60).map(|_| sentence()).collect()).collect())
}

/// Sentence templates, in which an invented name replaces PER, LOC and ORG.
const SENTENCES: [&str; 10] = [
    "PER works for ORG in LOC .",
    "Yesterday PER took the train to LOC .",
    "The office of ORG is in LOC .",
    "PER and PER live in LOC .",
    "ORG gave PER a new boat .",
    "The river runs from LOC to LOC .",
    "A PER mora em LOC e trabalha na ORG .",
    "O PER foi de LOC para LOC .",
    "A casa do PER fica em LOC .",
    "A ORG abriu uma loja em LOC .",
];

/// The syllables of invented names.
const SYLLABLES: [&str; 24] = [
    "ba", "be", "bri", "ca", "co", "de", "do", "fa", "ga", "hu", "jo", "la", "le", "lis", "ma", "mo", "na", "pra",
    "re", "ro", "sa", "tei", "vi", "xa",
];

/// Returns a sentence with invented names, whose kind only the words around them tell.
pub fn tagged_sentence(random: &mut Stream) -> TaggedSentence {
    let mut sentence = TaggedSentence::default();
    for word in SENTENCES[random.below(SENTENCES.len())].split(' ') {
        if !["PER", "LOC", "ORG"].contains(&word) {
            sentence.words.push(word.to_string());
            sentence.tags.push("O".to_string());
            continue;
        }
        for place in ["B", "I"].iter().take(1 + random.below(2)) {
            let syllables = 2 + random.below(2);
            sentence.words.push((0..syllables).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect());
            sentence.tags.push(format!("{place}-{word}"));
        }
    }
    sentence
}

const PEOPLE: [&str; 12] = [
    "Rosa Medeiros",
    "Pedro Lima",
    "Ana",
    "Tom Prado",
    "Maria Costa",
    "João",
    "Inês Vaz",
    "Luís Pires",
    "Clara",
    "Paulo Serra",
    "Teresa Brandão",
    "Nuno",
];
const DEEDS: [&str; 5] = ["discovered", "visited", "painted", "described", "left"];
const PLACES: [&str; 8] = [
    "the golden island",
    "the old harbour",
    "the white tower",
    "Rio Claro",
    "the lost village",
    "Bela Vista",
    "the long bridge",
    "the green coast",
];
const JOURNEYS: [&str; 4] = ["a long voyage", "a spring storm", "the second journey", "a walk"];
const REMARKS: [&str; 4] =
    ["The weather was good.", "Many people know the story.", "It was told again and again.", "Nobody knows why."];

/// Returns questions about who did what and when, each with a text that contains the answer.
pub fn voyages(count: usize, seed: u64) -> Vec<QuestionExample> {
    let mut random = Stream::seeded(seed);
    let voyage = |_| {
        let mut pick = |words: &[&'static str]| words[random.below(words.len())];
        let (person, deed, place, journey) = (pick(&PEOPLE), pick(&DEEDS), pick(&PLACES), pick(&JOURNEYS));
        let remark = pick(&REMARKS);
        let year = (1400 + random.below(200)).to_string();
        let (question, answer) = match random.below(3) {
            0 => (format!("Who {deed} {place}?"), person),
            1 => (format!("What was it that {person} {deed}?"), place),
            _ => (format!("When was it that {person} {deed} {place}?"), year.as_str()),
        };
        let fact = match random.below(2) {
            0 => format!("{person} {deed} {place} in the year {year} during {journey}."),
            _ => format!("In the year {year}, during {journey}, {person} {deed} {place}."),
        };
        let context = if random.below(2) == 0 { format!("{fact} {remark}") } else { format!("{remark} {fact}") };
        let start = context.find(answer).map_or(0, |byte| context[..byte].chars().count());
        QuestionExample {
            question,
            answer: Some(AnswerSpan { text: answer.to_string(), start }),
            context: context.into(),
        }
    };
    (0..count).map(voyage).collect()
}
