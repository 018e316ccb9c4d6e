//! Writes the seeds of all targets into the folder `seeds`, numbered. The same every time.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_bert::{BertConfig, Tokenizer, TrainOptions};
use cloze_fuzz::bases::{adapter, checkpoint, model_folder};
// Its runtime has the counters that the build adds.
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys as _;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Writes the seeds of one target, numbered.
struct Seeds {
    folder: PathBuf,
    count: usize,
}

impl Seeds {
    fn of(target: &str) -> Seeds {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        // Inputs that once broke a promise have other names, and stay.
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
                fs::remove_file(path).expect("an old seed can be removed");
            }
        }
        Seeds { folder, count: 0 }
    }

    /// Adds a seed: the bytes that choose what is tested, then the content.
    fn add(&mut self, choice: &[u8], content: impl AsRef<[u8]>) {
        let path = self.folder.join(format!("{:02}", self.count));
        fs::write(path, [choice, content.as_ref()].concat()).expect("a seed can be written");
        self.count += 1;
    }
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> Vec<u8> {
    fs::read(repository().join(path)).expect("the file is in the repository")
}

fn main() {
    safetensors();
    pytorch();
    config();
    folders();
    tokenizers();
    texts();
    readers();
    corpora();
    parquet_files();
    programs();
}

/// The header and the bytes of a file of safetensors.
fn header_and_data(file: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(*file.first_chunk().expect("a header"));
    let header = &file[8..8 + length as usize];
    [header.trim_ascii_end(), &file[8 + length as usize..]].concat()
}

fn safetensors() {
    let mut seeds = Seeds::of("safetensors");
    let file = read("crates/tensor/tests/pytorch/expected_module.safetensors");
    seeds.add(&[0], &file);
    seeds.add(&[1], header_and_data(&file));
    for header in [
        r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I64","shape":[1],"data_offsets":[24,32]}}"#,
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[0,4],"data_offsets":[2,2]}}"#,
        r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F64","shape":[1,1,1],"data_offsets":[3,11]},"c":{"dtype":"F4","shape":[2],"data_offsets":[11,12]}}"#,
        "{}",
    ] {
        seeds.add(&[1], header);
    }
    seeds.add(
        &[3],
        r#"{"metadata":{"total_size":16},"weight_map":{"a":"model-1-of-2.safetensors","b":"model-2.safetensors"}}"#,
    );
}

fn pytorch() {
    let mut seeds = Seeds::of("pytorch");
    for name in ["zip.bin", "legacy.bin", "wrapped_zip.bin", "wrapped_legacy.bin", "whole_module.bin", "expanded.bin"] {
        seeds.add(&[0], read(&format!("crates/tensor/tests/pytorch/{name}")));
    }
    for kind in [3, 4] {
        // Views of storages, and the instructions between them.
        seeds.add(&[kind], [0, 0, 0, 0, 0, 1, 2, 2, 3, 2, 3, 1]);
        seeds.add(&[kind], [10, 11, 22, 5, 1, 1, 1, 1, 1, 2, 4, 2, 1, 29, 1, 4, 3, 1, 0, 0, 1, 8, 1, 1]);
        seeds.add(&[kind], (0..64).collect::<Vec<u8>>());
    }
}

fn config() {
    let mut seeds = Seeds::of("config");
    seeds.add(&[], read("models/tiny/config.json"));
    seeds.add(&[], read("tests/parity/fixtures/distilbert/config.json"));
    seeds.add(&[], BertConfig::base().with_labels(["a", "b", "c"]).to_json());
    seeds.add(&[], BertConfig::distilbert().to_json());
    seeds.add(
        &[],
        r#"{"model_type":"bert","num_labels":3,"id2label":{"0":"x","1":"y","2":"z"},"label2id":{"x":0,"y":1,"z":2},"hidden_act":"gelu_new","position_embedding_type":"absolute","problem_type":"regression","tie_word_embeddings":false,"is_decoder":false,"use_cache":true,"torch_dtype":"float32","pruned_heads":{},"architectures":["BertForMaskedLM"]}"#,
    );
    seeds.add(
        &[],
        r#"{"model_type":"distilbert","dim":8,"n_layers":1,"n_heads":2,"hidden_dim":16,"vocab_size":30,"max_position_embeddings":16,"dropout":0.1,"attention_dropout":0.1,"qa_dropout":0.1,"seq_classif_dropout":0.2,"activation":"gelu","sinusoidal_pos_embds":false,"initializer_range":0.02,"pad_token_id":0}"#,
    );
}

fn folders() {
    let mut seeds = Seeds::of("model_folder");
    let folders = model_folder::model_folders();
    for (at, content) in (0..).zip(folders.contents) {
        content.into_iter().for_each(|content| seeds.add(&[at], content));
    }
    seeds.add(&[4], r#"{"prompts":{"query":"the ","document":""},"default_prompt_name":"query","similarity_fn_name":"dot","__version__":{}}"#);
    seeds.add(&[2], r#"{"word_embedding_dimension":4,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":true,"pooling_mode_mean_sqrt_len_tokens":false,"include_prompt":false}"#);
    seeds.add(
        &[7],
        r#"{"activation_fn":"torch.nn.modules.activation.Sigmoid","prompts":{},"model_type":"CrossEncoder"}"#,
    );

    let mut seeds = Seeds::of("adapter");
    let adapters = adapter::adapters();
    seeds.add(&[0], &adapters.config);
    seeds.add(&[1], header_and_data(&adapters.weights));
    seeds.add(&[2], [&adapters.config[..], &[0], &header_and_data(&adapters.weights)].concat());
    seeds.add(
        &[224],
        r#"{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":"all-linear","exclude_modules":["value"],"rank_pattern":{"query":2},"alpha_pattern":{".*value":8},"use_rslora":true,"lora_bias":false,"bias":"none","layers_to_transform":[0],"layers_pattern":"layer","modules_to_save":["classifier"],"init_lora_weights":true}"#,
    );

    let mut seeds = Seeds::of("checkpoint");
    let checkpoint = checkpoint::Checkpoint::new();
    // The seconds that the run took differ.
    let state: String = String::from_utf8(checkpoint.state).expect("it is JSON");
    let state: Vec<&str> =
        state.lines().map(|line| if line.contains("\"seconds\"") { "  \"seconds\": 0.5," } else { line }).collect();
    let tensors = header_and_data(&checkpoint.tensors);
    seeds.add(&[0], state.join("\n"));
    (1..4).for_each(|kind| seeds.add(&[kind], &tensors));
    seeds.add(&[2], r#"{"mean.weight[0..2]":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"mean.weight[2..3]":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#);
}

fn tokenizers() {
    let mut seeds = Seeds::of("tokenizer_files");
    let lines = ["the cat sat on the mat, ação"];
    let tokenizer = Tokenizer::train(lines, 40, &TrainOptions::new()).expect("the corpus has words");
    let json = tokenizer.to_json().expect("a tokenizer can be written");
    seeds.add(&[0], &json);
    let added = tokenizer.add_tokens(["new york", "[E]"]).and_then(|tokenizer| tokenizer.to_json());
    seeds.add(&[0], added.expect("tokens can be added"));
    seeds.add(
        &[1],
        (0..tokenizer.vocab_size() as u32).filter_map(|id| tokenizer.token(id)).collect::<Vec<_>>().join("\n"),
    );
    seeds.add(&[2], read("models/tiny/tokenizer_config.json"));
    for kind in [2, 132] {
        seeds.add(
            &[kind],
            r#"{"tokenizer_class":"BertTokenizer","do_lower_case":true,"strip_accents":null,"tokenize_chinese_chars":true,"model_max_length":1000000000000000019884624838656,"added_tokens_decoder":{"0":{"content":"[PAD]","lstrip":false,"normalized":false,"rstrip":false,"single_word":false,"special":true}},"additional_special_tokens":["<x>"],"model_input_names":["input_ids","token_type_ids"],"clean_up_tokenization_spaces":true,"cls_token":"[CLS]","mask_token":{"content":"[MASK]","lstrip":true,"__type":"AddedToken"}}"#,
        );
    }
    seeds.add(&[3], read("models/tiny/special_tokens_map.json"));
    seeds.add(&[4], r#"{"[X]":41,"ab c":42}"#);
}

fn texts() {
    let mut seeds = Seeds::of("wordpiece");
    for (kind, text) in (0..).zip([
        "the cat sat on the mat; the dog ran, and ran!",
        "New York is [MASK] city [E] ação a\u{301}\u{302}",
        "中文cat σς ﬁ ß I İ ı \u{200b}\u{feff}\u{0}x\r\n\t\u{a0}",
        "new york new  york [UNK][CLS]##s ##",
        "\u{fffd}\u{10ffff}e\u{301}e\u{300}\u{315}",
        "catcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcatcat",
        "",
        "a b c d e f g",
        "$#@!.,;:'\"()[]{}<>~`^|\\/*&%+-=_?",
        "the cat",
        "ran ran ran ran ran ran",
        "İstanbul'da ılık",
    ]) {
        seeds.add(&[kind, 5], text);
        seeds.add(&[kind, 130], text);
    }
}

fn readers() {
    let mut seeds = Seeds::of("readers");
    for (kind, form, content) in [
        (0, 0, "sentence\tlabel\ngood \"x\t1\nbad\t0\n\n-\t-1\n"),
        (0, 1, "good\tvery\t1\nbad\tworse\t0\n"),
        (1, 0, "text,label\n\"a, \"\"b\"\"\nc\",yes\nd,0\n"),
        (1, 2, "a;b;c\nx;y;4,5\n;;\n"),
        (1, 4, "a,b,c\nx,0,1\ny,1,1\n"),
        (1, 3, "1,a\n0,b\n"),
        (1, 59, "text;label\na;1\n"),
        (2, 0, r#"{"data":[{"text":"a","label":1},{"text":["b","c"],"label":"yes"},{"text":null,"label":0.5}]}"#),
        (2, 2, r#"{"a":["x","y"],"b":["z",null],"c":[1,2.5]}"#),
        (2, 0, r#"[{"sentence":"x","label":NaN},{"sentence":"y","label":-Infinity}]"#),
        (
            3,
            0,
            "{\"content\":\"a\",\"label\":true}\n\n{\"content\":\"b\"}\n[1]\n{\"content\":\"c\",\"label\":{\"yes\":1}}\n",
        ),
        (3, 4, "{\"a\":\"x\",\"b\":1,\"c\":0}\n"),
        (4, 0, "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nGerman JJ I-NP I-MISC\n"),
        (
            4,
            128,
            "# text = a\n1\ta\ta\tDET\t_\t_\t0\troot\t_\t_\n1.1\tb\t_\tX\t_\t_\t_\t_\t_\t_\n2-3\tc\t_\t_\t_\t_\t_\t_\t_\t_\n\n",
        ),
        (4, 2, "a B-X\nb I-X\nc E-X\nd S-Y\n\ne U-Z\nf\n"),
        (4, 3, "# c\n# O\na O\n\n#\tO\n"),
    ] {
        seeds.add(&[kind, form], content);
    }
    for squad in [
        r#"{"version":"v2.0","data":[{"title":"t","paragraphs":[{"context":"the cat sat","qas":[{"id":"1","question":"who?","answers":[{"text":"cat","answer_start":4}],"is_impossible":false},{"id":2,"question":"why?","answers":[],"plausible_answers":[],"is_impossible":true}]}]}]}"#,
        r#"[{"context":"a b","qas":[{"question":"q","answers":{"text":["b"],"answer_start":[2]}}]}]"#,
        "{\"id\":\"x\",\"title\":\"t\",\"context\":\"a b\",\"question\":\"q\",\"answers\":{\"text\":[\"a\"],\"answer_start\":[0]}}\n{\"context\":\"c\",\"question\":\"q\",\"answers\":{\"text\":[],\"answer_start\":[]}}\n",
    ] {
        seeds.add(&[5, 1], squad);
    }
}

fn corpora() {
    let mut seeds = Seeds::of("corpora");
    let lines = "One sentence.\nAnother one.\n\nA second document.\r\n \n\nThe third.";
    let prose = "Mr. Silva went to St. Paul. \"Why?\" he asked.\nA line goes on\nhere.\n\nD. Maria veio. O cão, etc. e tal... Sim!\u{2029}Fim";
    let json = "{\"text\": \"One. Two.\", \"id\": 1}\n\n{\"text\": \"A \\u00e7\\ud83d\\ude00 b.\\n\\nC.\"}\n";
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("memory can be written")
    };
    seeds.add(&[0], lines);
    seeds.add(&[1], prose);
    seeds.add(&[2], json);
    seeds.add(&[3], gzip(lines));
    seeds.add(&[3], [gzip(lines), gzip(prose)].concat());
    for level in [CompressionLevel::Uncompressed, CompressionLevel::Fastest] {
        seeds.add(&[4], compress_to_vec(lines.repeat(3).as_bytes(), level));
        seeds.add(&[7], compress_to_vec(json.as_bytes(), level));
    }
    seeds.add(&[5], prose);
    seeds.add(&[6], json);
}

fn parquet_files() {
    let mut seeds = Seeds::of("parquet");
    for (number, codec) in
        [Codec::UNCOMPRESSED, Codec::SNAPPY, Codec::GZIP(Default::default()), Codec::ZSTD(ZstdLevel::default())]
            .into_iter()
            .enumerate()
    {
        let file = parquet_file(codec, number == 0);
        (0..3).for_each(|kind| seeds.add(&[kind], &file));
        let footer = u32::from_le_bytes(*file[file.len() - 8..].first_chunk().expect("a length"));
        // The target makes the footer a multiple of 8 bytes, so that mutations keep its length right.
        let padding = vec![0; (8 - footer as usize % 8) % 8];
        let body = [&file[4..file.len() - 8], &padding].concat();
        seeds.add(&[64, (footer as usize).div_ceil(8) as u8], body);
    }
}

/// Makes a file of texts and labels.
fn parquet_file(codec: Codec, dictionary: bool) -> Vec<u8> {
    let schema = "message rows { optional binary text (UTF8); required int64 label; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("the schema is valid"));
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(dictionary)
        .set_created_by(String::new())
        .build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).expect("the schema is valid");
    let mut group = writer.next_row_group().expect("memory can be written");
    let mut column = group.next_column().expect("a column").expect("a column");
    let texts = ["good", "bad. Very.", "good"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 1, 0, 1]), None).expect("texts fit");
    column.close().expect("memory can be written");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<Int64Type>().write_batch(&[1, 0, -1, 1], None, None).expect("numbers fit");
    column.close().expect("memory can be written");
    group.close().expect("memory can be written");
    writer.close().expect("memory can be written");
    file
}

/// Seeds of targets that read choices: some bytes.
fn programs() {
    let bytes = |seed: u32, count: u32| {
        (0..count).map(|i| ((i + seed * 1000).wrapping_mul(0x9e37_79b1) >> 24) as u8).collect::<Vec<u8>>()
    };
    let mut seeds = Seeds::of("views");
    (0..12).for_each(|seed| seeds.add(&[2, 3, 4], bytes(seed, 60)));
    let mut seeds = Seeds::of("kernels");
    (0..20).for_each(|seed| seeds.add(&[seed as u8], bytes(seed, 24)));
    let mut seeds = Seeds::of("tokenized_corpus");
    seeds.add(&[], [0]);
    (0..12).for_each(|seed| seeds.add(&[seed as u8 % 3], bytes(seed, 16)));
    let mut seeds = Seeds::of("gpu_failures");
    (0..10).for_each(|operation| seeds.add(&[10 * operation, operation], [operation, operation + 1]));
}
