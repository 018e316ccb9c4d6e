//! The five special tokens: their names in the vocabulary and their ids.

/// The names of the special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) pad: String,
    pub(super) unk: String,
    pub(super) cls: String,
    pub(super) sep: String,
    pub(super) mask: String,
}

impl Default for Names {
    fn default() -> Names {
        let [pad, unk, cls, sep, mask] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
        Names { pad, unk, cls, sep, mask }
    }
}

impl Names {
    /// Returns the name that `tokenizer_config.json` and `special_tokens_map.json` store in this field.
    pub(super) fn field(&mut self, field: &str) -> Option<&mut String> {
        match field {
            "pad_token" => Some(&mut self.pad),
            "unk_token" => Some(&mut self.unk),
            "cls_token" => Some(&mut self.cls),
            "sep_token" => Some(&mut self.sep),
            "mask_token" => Some(&mut self.mask),
            _ => None,
        }
    }

    /// Returns the names by their fields in `special_tokens_map.json`.
    pub(super) fn fields(&self) -> [(&'static str, &str); 5] {
        [
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
            ("cls_token", &self.cls),
            ("sep_token", &self.sep),
            ("mask_token", &self.mask),
        ]
    }

    /// Returns all names in the order of the ids that training assigns, 0 to 4.
    pub(super) fn all(&self) -> [&str; 5] {
        [&self.pad, &self.unk, &self.cls, &self.sep, &self.mask].map(String::as_str)
    }
}

/// The ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) pad: u32,
    pub(super) unk: u32,
    pub(super) cls: u32,
    pub(super) sep: u32,
    pub(super) mask: u32,
}
