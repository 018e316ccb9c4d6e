//! HTML pages of pictures and tables.

use std::fmt::Write as _;
use std::path::Path;

use cloze_tensor::write_file_atomically;

use super::svg::escaped;
use super::{Picture, STYLE};
use crate::{Error, Result};

/// A page of pictures and tables: a self-contained HTML file that loads nothing and supports light and dark mode.
///
/// ```
/// use cloze_train::plot::{HeatMap, Page};
/// let map = HeatMap::new("Head 1", vec![vec![0.2, 0.8], vec![0.6, 0.4]]).draw();
/// let page = Page::new("Attention").note("it rained").pictures("Layer 1", [map]).html();
/// assert!(page.starts_with("<!doctype html>"));
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

const PAGE_STYLE: &str = "\
:root{color-scheme:light dark;--page:#f4f6f8;--card:#fff;--ink:#14191f;--text:#3d4650;--muted:#66707b;--edge:#dfe4e9}\
@media(prefers-color-scheme:dark){:root{--page:#0b0e12;--card:#12161b;--ink:#f0f3f6;--text:#c2cad3;--muted:#96a1ad;--edge:#262d35}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--page);color:var(--text);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\
main{max-width:1400px;margin:0 auto;padding:36px 24px 56px}\
h1{margin:0;color:var(--ink);font-size:27px;line-height:1.25;letter-spacing:-.01em;overflow-wrap:anywhere}\
h2{margin:36px 0 12px;color:var(--ink);font-size:18px}\
h3{margin:10px 0 2px;color:var(--ink);font-size:15px}\
p{max-width:75ch;margin:10px 0 0;overflow-wrap:anywhere}\
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(156px,1fr));gap:12px;margin:24px 0 0}\
.tile,.card{background:var(--card);border:1px solid var(--edge);border-radius:10px}\
.tile{padding:13px 12px;display:flex;flex-direction:column;justify-content:space-between}.tile dt{color:var(--muted);font-size:13px}\
.tile dd{margin:2px 0 0;color:var(--ink);font-size:20px;font-weight:600;line-height:1.3;\
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--width)),1fr));gap:16px;align-items:start}\
.card{padding:8px;overflow-x:auto}.card svg{display:block;margin:0 auto;min-width:var(--least)}\
.plain{padding:6px 16px}\
table{width:100%;border-collapse:collapse;font-size:14px}\
th,td{padding:7px 16px 7px 0;border-bottom:1px solid var(--edge);text-align:left;vertical-align:top;overflow-wrap:anywhere}\
tr:last-child th,tr:last-child td{border-bottom:0}thead tr:last-child th{border-bottom:1px solid var(--edge)}\
tbody th{width:38%;color:var(--muted);font-weight:400}thead th{color:var(--muted);font-weight:600}\
td{color:var(--ink);font-variant-numeric:tabular-nums}\
footer{margin-top:36px;color:var(--muted);font-size:13px}\
@media(max-width:640px){main{padding:20px 12px 40px}h1{font-size:23px}.plain{padding:6px 12px}}\
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}";

/// Upper limit of a column's minimum width. Wider pictures are scaled down if there is less room.
const WIDEST_COLUMN: f64 = 560.0;

/// Pictures are not scaled down further than this, to keep their text readable. On narrower screens, they scroll.
const LEAST_SCALE: f64 = 0.75;
/// Pictures wider than this, in pixels, may be scaled down to it.
const LARGEST_LEAST: f64 = 480.0;

impl Page {
    /// Makes a page that has only a title.
    pub fn new(title: impl Into<String>) -> Page {
        Page { title: title.into(), body: String::new() }
    }

    /// Adds a paragraph.
    pub fn note(mut self, text: impl AsRef<str>) -> Page {
        let _ = writeln!(self.body, "<p>{}</p>", escaped(text.as_ref()));
        self
    }

    /// Adds a row of tiles, each with a name and a value in large type.
    pub fn tiles(mut self, tiles: &[(String, String)]) -> Page {
        let tile = |(name, value): &(String, String)| {
            format!("<div class=\"tile\"><dt>{}</dt><dd>{}</dd></div>\n", escaped(name), escaped(value))
        };
        if !tiles.is_empty() {
            let _ = writeln!(self.body, "<dl class=\"tiles\">\n{}</dl>", tiles.iter().map(tile).collect::<String>());
        }
        self
    }

    /// Adds pictures under a heading. They are scaled down, or scroll, if they are wider than the page.
    pub fn pictures(mut self, heading: &str, pictures: impl IntoIterator<Item = Picture>) -> Page {
        let pictures: Vec<Picture> = pictures.into_iter().collect();
        if pictures.is_empty() {
            return self;
        }
        let card = |picture: &Picture| {
            let least = (LEAST_SCALE * picture.size.0).floor().min(LARGEST_LEAST);
            format!("<div class=\"card\" style=\"--least:{least}px\">{}</div>\n", picture.inline())
        };
        let width = pictures.iter().map(|picture| picture.size.0 + 18.0).fold(0.0, f64::max).min(WIDEST_COLUMN);
        self.cards(heading, width, &pictures.iter().map(card).collect::<String>());
        self
    }

    /// Adds tables of names and values, side by side, under a heading. Empty tables are left out.
    pub fn lists(mut self, heading: &str, lists: &[(String, Vec<(String, String)>)]) -> Page {
        let line = |(name, value): &(String, String)| {
            format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escaped(name), escaped(value))
        };
        let card = |(name, lines): &(String, Vec<(String, String)>)| {
            let lines: String = lines.iter().map(line).collect();
            format!(
                "<div class=\"card plain\"><h3>{}</h3><table><tbody>\n{lines}</tbody></table></div>\n",
                escaped(name)
            )
        };
        let cards: String = lists.iter().filter(|(_, lines)| !lines.is_empty()).map(card).collect();
        if !cards.is_empty() {
            self.cards(heading, 400.0, &cards);
        }
        self
    }

    /// Adds a table under a heading, with `heads` as the names of the columns.
    pub fn table(mut self, heading: &str, heads: &[String], rows: &[Vec<String>]) -> Page {
        let cells = |cells: &[String], tag: &str| -> String {
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
        };
        let head = cells(heads, "th");
        let rows: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
        let table = format!("<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>");
        let _ = writeln!(self.body, "<h2>{}</h2>\n<div class=\"card plain\">{table}</div>", escaped(heading));
        self
    }

    fn cards(&mut self, heading: &str, width: f64, cards: &str) {
        let (heading, width) = (escaped(heading), width.ceil());
        let _ =
            writeln!(self.body, "<h2>{heading}</h2>\n<div class=\"cards\" style=\"--width:{width}px\">\n{cards}</div>");
    }

    /// Returns the page as HTML.
    pub fn html(&self) -> String {
        let (title, body, version) = (escaped(&self.title), &self.body, env!("CARGO_PKG_VERSION"));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
             {body}<footer>Written by cloze {version}.</footer>\n</main>\n</body>\n</html>\n"
        )
    }

    /// Writes the page to a file atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let written = write_file_atomically(path, self.html().as_bytes());
        written.map_err(|source| Error::io(path, "cannot write", source))
    }
}
