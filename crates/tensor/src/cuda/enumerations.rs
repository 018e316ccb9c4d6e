//! Enumerations whose numbers are passed to kernels: those of `kernels/cuda/enumerations.cuh`, under the same names.

/// Declares enumerations, and for the test below a list of the variants of each.
macro_rules! enumerations {
    ($($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)+ })+) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(i32)]
            pub(crate) enum $name { $($(#[$doc])* $variant = $number,)+ }
        )+

        #[cfg(test)]
        const ALL: &[(&str, &[(&str, i32)])] =
            &[$((stringify!($name), &[$((stringify!($variant), $name::$variant as i32)),+])),+];
    };
}

enumerations! {
    /// The last step of a matrix product, before it is written.
    EpilogueKind {
        Plain = 0,
        Bias = 1,
        BiasGelu = 2,
        GeluGradient = 3,
    }

    /// How a sum of rows treats the value in its destination.
    Accumulate {
        /// It is replaced.
        Overwrite = 0,
        /// The sum starts from it: the rows are further parts of one product.
        Continue = 1,
        /// The finished sum is added to it: another contribution to a gradient.
        Add = 2,
    }
}

impl Accumulate {
    /// Returns how a contribution to a gradient is written: added to earlier ones, or as the first.
    pub(crate) fn gradient(add: bool) -> Accumulate {
        if add { Accumulate::Add } else { Accumulate::Overwrite }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::ALL;
    use crate::random::Purpose;

    /// Returns the names and numbers of `enum class name : int { .. }` in the header.
    pub(crate) fn in_header(name: &str) -> Vec<(String, i32)> {
        let start = format!("enum class {name} : int {{");
        let (_, rest) = cloze_kernels::ENUMERATIONS.split_once(&start).unwrap_or_else(|| panic!("no `{start}`"));
        let (body, _) = rest.split_once("};").expect("an enumeration ends");
        let variant = |line: &str| {
            let (name, number) = line.split_once(',').expect("a comma").0.split_once('=').expect("a number");
            (name.trim().to_string(), number.trim().parse().expect("a decimal number"))
        };
        body.lines().filter(|line| !line.trim().is_empty()).map(variant).collect()
    }

    /// Checks that an enumeration is in the header, with the same names and numbers.
    pub(crate) fn assert_in_header(name: &str, variants: &[(&str, i32)]) {
        let variants: Vec<(String, i32)> = variants.iter().map(|&(name, number)| (name.to_string(), number)).collect();
        assert_eq!(in_header(name), variants, "{name}");
    }

    #[test]
    fn rust_and_cuda_declare_the_same_enumerations() {
        ALL.iter().for_each(|&(name, variants)| assert_in_header(name, variants));
        let purposes = [("Dropout", Purpose::Dropout as i32), ("AttentionDropout", Purpose::AttentionDropout as i32)];
        assert_in_header("Purpose", &purposes);
    }
}
