//! cloze
