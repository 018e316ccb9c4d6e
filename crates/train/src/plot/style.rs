//! Colours, fonts and spacing.

/// The style sheet of all pictures, for a page that shows them inline.
///
/// Colours are repeated for each class instead of using CSS variables, which some SVG renderers do not support.
pub const STYLE: &str = "\
.cz{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:12px}\
.cz text{fill:#3d4650;font-variant-numeric:tabular-nums}\
.cz .ti{fill:#14191f;font-size:15px;font-weight:600}.cz .st{fill:#14191f;font-size:12.5px;font-weight:600}\
.cz .mu{fill:#66707b}.cz .sm{font-size:10.5px}.cz .e{text-anchor:end}.cz .m{text-anchor:middle}\
.cz .on,.cz text.on{fill:#fff}.cz .bg{fill:#fff}.cz .fr{fill:none;stroke:#c9d0d7}.cz .gr{stroke:#e6eaee}.cz .ax{stroke:#98a2ac}\
.cz .ln{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}\
.cz .ra{fill:none;stroke-width:1;stroke-opacity:.28;stroke-linejoin:round}\
.cz .ho{fill:#fff;fill-opacity:.6;stroke-width:1.4}.cz .de{stroke-opacity:.15}.cz .rs{stroke-width:4;stroke-opacity:.3}\
.cz .dt{stroke:#fff;stroke-width:1;fill-opacity:.88}.cz .ht{fill:#0b5cad}.cz .cd{fill:#b34700}\
.cz .f0{fill:#0072b2}.cz .f1{fill:#c65102}.cz .f2{fill:#00805f}.cz .f3{fill:#ae4c86}.cz .f4{fill:#9c6b00}.cz .f5{fill:#56616c}\
.cz .s0{stroke:#0072b2}.cz .s1{stroke:#c65102}.cz .s2{stroke:#00805f}.cz .s3{stroke:#ae4c86}.cz .s4{stroke:#9c6b00}.cz .s5{stroke:#56616c}\
@media(prefers-color-scheme:dark){\
.cz text{fill:#c2cad3}.cz .ti,.cz .st{fill:#f0f3f6}.cz .mu{fill:#96a1ad}\
.cz .on,.cz text.on{fill:#12161b}.cz .bg{fill:#12161b}.cz .fr{stroke:#3b444e}.cz .gr{stroke:#262d35}.cz .ax{stroke:#6b7682}\
.cz .ra{stroke-opacity:.4}.cz .ho{fill:#12161b}.cz .de{stroke-opacity:.22}.cz .rs{stroke-opacity:.4}.cz .dt{stroke:#12161b}.cz .ht{fill:#7cbcff}.cz .cd{fill:#ff9d5c}\
.cz .f0{fill:#5aaeea}.cz .f1{fill:#ff8f4f}.cz .f2{fill:#34c79d}.cz .f3{fill:#e79fca}.cz .f4{fill:#ecbb4a}.cz .f5{fill:#aab4bf}\
.cz .s0{stroke:#5aaeea}.cz .s1{stroke:#ff8f4f}.cz .s2{stroke:#34c79d}.cz .s3{stroke:#e79fca}.cz .s4{stroke:#ecbb4a}.cz .s5{stroke:#aab4bf}\
}";

/// Number of different colours of series and classes.
pub(super) const COLOURS: usize = 6;
/// Distance from the edge of a picture, in pixels.
pub(super) const MARGIN: f64 = 14.0;
/// Size of text in pixels, as in [`STYLE`].
pub(super) const FONT: f64 = 12.0;
/// Size of small text in pixels, as in [`STYLE`].
pub(super) const SMALL: f64 = 10.5;
/// Opacity of a cell above which text on it has the background's colour.
pub(super) const DARK: f64 = 0.55;
