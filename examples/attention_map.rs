//! Attention maps (section 5.1 of the course): for each layer and head, how much each token of a sentence attends to
//! each other token. Draws a page of heat maps, and prints how much each head attends to the token itself, to its
//! neighbours, and to `[CLS]` and `[SEP]`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::plot::{Grid, HeatMap, Page, Picture};
use cloze_examples::{ModelArgument, PictureArgument, Result, Table};
use serde::Serialize;

/// Draws how much the tokens of a sentence attend to each other.
#[derive(Parser)]
struct Arguments {
    /// Sentence
    #[arg(default_value = "She goes to the bank with her coins.")]
    sentence: String,
    /// Second sentence of a pair
    #[arg(long)]
    second: Option<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Layer to draw, counted from 1 [default: all]
    #[arg(long)]
    layer: Option<usize>,
    /// Head to draw, counted from 1 [default: all]
    #[arg(long)]
    head: Option<usize>,
    #[command(flatten)]
    out: PictureArgument,
    /// Also write the probabilities to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The attention of one head.
#[derive(Serialize)]
struct Head {
    layer: usize,
    head: usize,
    /// Row i contains how much token i attends to each token. Its values add up to 1.
    probabilities: Vec<Vec<f64>>,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let path = arguments.out.file("attention_map")?;
    cloze_examples::check_json(arguments.json.as_deref())?;
    let (model, tokenizer) = arguments.model.open()?;
    let encoding = tokenizer.encode_with(&arguments.sentence, arguments.second.as_deref(), &EncodeOptions::new())?;
    let heads = heads(arguments, &model, &encoding)?;
    print(&encoding, &heads);

    let title = format!("Attention in {} by {}", quoted(arguments), arguments.model.name());
    match cloze_examples::is_svg(&path) {
        true => picture(&title, &encoding, &heads).save(&path)?,
        false => page(&title, &encoding, &heads).save(&path)?,
    }
    println!("The heat maps are in {}", path.display());
    cloze_examples::write_json(
        arguments.json.as_deref(),
        &serde_json::json!({"tokens": encoding.tokens, "heads": heads}),
    )
}

/// Returns the sentence or both sentences, in quotes.
fn quoted(arguments: &Arguments) -> String {
    match &arguments.second {
        Some(second) => format!("“{}” and “{second}”", arguments.sentence),
        None => format!("“{}”", arguments.sentence),
    }
}

/// Computes the attention of the selected heads in the selected layers.
fn heads(arguments: &Arguments, model: &BertModel, encoding: &Encoding) -> Result<Vec<Head>> {
    let (layers, count) = (model.config().num_hidden_layers, model.config().num_attention_heads);
    for (name, asked, most) in [("--layer", arguments.layer, layers), ("--head", arguments.head, count)] {
        if let Some(number) = asked.filter(|number| !(1..=most).contains(number)) {
            return Err(format!("{name} is {number}: must be from 1 to {most} for {}", arguments.model.name()).into());
        }
    }
    let hidden = model.hidden(&Batch::from_encodings(std::slice::from_ref(encoding))?)?;
    let (mut heads, length) = (Vec::new(), encoding.len());
    for (layer, attention) in hidden.attentions.iter().enumerate() {
        if arguments.layer.is_some_and(|asked| asked != layer + 1) {
            continue;
        }
        let attention = attention.first().ok_or("the batch is empty")?.to_vec::<f32>()?; // [N, L, L]
        for (head, probabilities) in attention.chunks(length * length).enumerate() {
            if arguments.head.is_none_or(|asked| asked == head + 1) {
                let row = |row: &[f32]| row.iter().map(|&p| f64::from(p)).collect();
                let probabilities = probabilities.chunks(length).map(row).collect();
                heads.push(Head { layer: layer + 1, head: head + 1, probabilities });
            }
        }
    }
    Ok(heads)
}

fn heat_map(title: String, encoding: &Encoding, head: &Head) -> HeatMap {
    HeatMap::new(title, head.probabilities.clone())
        .range(0.0, 1.0)
        .rows("from", encoding.tokens.clone())
        .columns("to", encoding.tokens.clone())
        .unit("probability")
}

/// Draws a section for each layer with a map for each head. A single map is drawn large.
fn page(title: &str, encoding: &Encoding, heads: &[Head]) -> Page {
    let explanation = "Each row shows how much of a token's attention goes to the token of each column. The values of a \
                       row add up to 1. Hover over a cell to see its value.";
    let page = Page::new(title).note(explanation);
    heads.chunk_by(|a, b| a.layer == b.layer).fold(page, |page, layer| {
        let map = |head: &Head| {
            let map = heat_map(format!("Head {}", head.head), encoding, head);
            if heads.len() == 1 { map.numbers().draw() } else { map.compact().draw() }
        };
        page.pictures(&format!("Layer {}", layer[0].layer), layer.iter().map(map))
    })
}

/// Draws all maps in one picture, a row for each layer.
fn picture(title: &str, encoding: &Encoding, heads: &[Head]) -> Picture {
    if let [head] = heads {
        let title = format!("{title}: layer {}, head {}", head.layer, head.head);
        return heat_map(title, encoding, head).numbers().draw();
    }
    let a_row = heads.chunk_by(|a, b| a.layer == b.layer).map(<[Head]>::len).max().unwrap_or(1);
    heads
        .iter()
        .fold(Grid::new(title, a_row), |grid, head| {
            let title = format!("Layer {}, head {}", head.layer, head.head);
            grid.picture(heat_map(title, encoding, head).compact().draw())
        })
        .draw()
}

/// Prints how much each head attends to certain tokens, as means over all tokens of the sentence.
fn print(encoding: &Encoding, heads: &[Head]) {
    println!("{}\n", encoding.tokens.join(" "));
    println!("mean attention of a token to ...\n");
    let special = |name: &str| -> Vec<usize> {
        encoding.tokens.iter().enumerate().filter(|(_, token)| *token == name).map(|(at, _)| at).collect()
    };
    let (cls, sep) = (special("[CLS]"), special("[SEP]"));
    let mut table = Table::new(">").row(["layer", "head", "itself", "previous", "next", "[CLS]", "[SEP]"]);
    for Head { layer, head, probabilities } in heads {
        let mean = |to: &dyn Fn(usize) -> Vec<usize>| {
            let of = |(from, row): (usize, &Vec<f64>)| to(from).into_iter().filter_map(|at| row.get(at)).sum::<f64>();
            probabilities.iter().enumerate().map(of).sum::<f64>() / probabilities.len() as f64
        };
        let means = [
            mean(&|from| vec![from]),
            mean(&|from| from.checked_sub(1).into_iter().collect()),
            mean(&|from| vec![from + 1]),
            mean(&|_| cls.clone()),
            mean(&|_| sep.clone()),
        ];
        let means = means.map(|mean| format!("{mean:.3}"));
        table = table.row([layer.to_string(), head.to_string()].into_iter().chain(means));
    }
    println!("{table}");
}
