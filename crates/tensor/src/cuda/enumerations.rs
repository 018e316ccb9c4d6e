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
    /// Functions of one variable.
    Unary {
        Exp = 0,
        Ln = 1,
        Tanh = 2,
        Sqrt = 3,
        Relu = 4,
        Reciprocal = 5,
        Gelu = 6,
        GeluTanh = 7,
        /// `x` times a number.
        Scale = 8,
        /// `x` plus a number.
        Shift = 9,
    }

    /// Operations on two operands.
    Binary {
        Add = 0,
        Sub = 1,
        Mul = 2,
        Div = 3,
    }

    /// The last step of a matrix product, before it is written.
    EpilogueKind {
        Plain = 0,
        Bias = 1,
        BiasGelu = 2,
        GeluGradient = 3,
    }

    /// How a sum of rows treats the value in its destination.
    #[allow(dead_code, reason = "the host still passes these numbers as integers")]
    Accumulate {
        /// It is replaced.
        Overwrite = 0,
        /// The sum starts from it: the rows are further parts of one product.
        Continue = 1,
        /// The finished sum is added to it: another contribution to a gradient.
        Add = 2,
    }
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::random::Purpose;

    /// Returns the names and numbers of `enum class name : int { .. }`.
    fn in_header(name: &str) -> Vec<(&'static str, i32)> {
        let start = format!("enum class {name} : int {{");
        let (_, rest) = cloze_kernels::ENUMERATIONS.split_once(&start).unwrap_or_else(|| panic!("no `{start}`"));
        let (body, _) = rest.split_once("};").expect("an enumeration ends");
        let variant = |line: &'static str| {
            let (name, number) = line.split_once(',').expect("a comma").0.split_once('=').expect("a number");
            (name.trim(), number.trim().parse().expect("a decimal number"))
        };
        body.lines().filter(|line| !line.trim().is_empty()).map(variant).collect()
    }

    #[test]
    fn rust_and_cuda_declare_the_same_enumerations() {
        for &(name, variants) in ALL {
            assert_eq!(in_header(name), variants, "{name}");
        }
        let purposes = [("Dropout", Purpose::Dropout as i32), ("AttentionDropout", Purpose::AttentionDropout as i32)];
        assert_eq!(in_header("Purpose"), purposes);
        assert_eq!(cloze_kernels::ENUMERATIONS.matches("enum class").count(), ALL.len() + 1);
    }
}
