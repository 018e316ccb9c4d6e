//! Search among vectors.

use std::path::Path;

use cloze_tensor::nearest::{StoredRows, bits};
use cloze_tensor::{DType, Device, Tensor, TensorFile, save_safetensors};

use crate::{Error, Result, SimilarityFunction};

/// Vectors, and which of them are nearest to another: exact search, without training and without parameters.
///
/// Every vector is compared with the query, by the cosine or the dot product, on all cores. Vectors are kept in f32, or, to
/// take a quarter or a thirty-second of the memory and of the time that reading it takes, in [`int8`](Index::int8) or
/// [`bits`](Index::bits).
///
/// ```
/// use cloze_bert::{Index, Pipeline, SentenceEmbedder};
/// # let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny");
/// let embedder = SentenceEmbedder::open(models)?;
/// let texts = ["The boat is red.", "Tom bakes bread.", "A dog sleeps."];
/// let index = Index::new(&embedder.embed(&texts)?)?;
/// let query = embedder.embed(&["The boat is red."])?;
/// let found = index.search(&query[0], 2)?;
/// assert_eq!(texts[found[0].0], "The boat is red.");
/// assert!((found[0].1 - 1.0).abs() < 1e-6);
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Index {
    rows: StoredRows,
    dimension: usize,
    similarity: SimilarityFunction,
}

impl Index {
    /// Makes an index of vectors of one length, which are found by their cosine with a query.
    ///
    /// # Errors
    /// Returns an error if there are no vectors, their lengths differ or are 0, or a number is not finite.
    pub fn new(vectors: &[impl AsRef<[f32]>]) -> Result<Index> {
        Index::with_similarity(vectors, SimilarityFunction::Cosine)
    }

    /// Makes an index as [`Index::new`], with another measure: that of
    /// [`SentenceEmbedder::similarity_function`](crate::SentenceEmbedder::similarity_function).
    ///
    /// # Errors
    /// Returns an error as [`Index::new`], and for measures other than the cosine and the dot product.
    pub fn with_similarity(vectors: &[impl AsRef<[f32]>], similarity: SimilarityFunction) -> Result<Index> {
        let Some(first) = vectors.first() else {
            return Err(Error::input("no vectors given: an index needs at least one, which says how long they are"));
        };
        if !matches!(similarity, SimilarityFunction::Cosine | SimilarityFunction::Dot) {
            let reason = format!("an index cannot search by {similarity:?}: use Cosine or Dot, or compare all vectors");
            return Err(Error::input(reason));
        }
        let dimension = first.as_ref().len();
        if !(1..=MOST_ELEMENTS).contains(&dimension) {
            return Err(Error::input(format!(
                "vector 0 has {dimension} elements: must have from 1 to {MOST_ELEMENTS}"
            )));
        }
        let rows = StoredRows::F32(matrix(vectors, dimension, similarity)?);
        Ok(Index { rows, dimension, similarity })
    }

    /// Keeps a byte for each element instead of four: 127 levels of the largest element of each vector in both directions.
    /// Queries keep more, about 15 bits of the largest element.
    ///
    /// # Errors
    /// Returns an error if the vectors are not in f32.
    pub fn int8(self) -> Result<Index> {
        let rows = int8(self.in_f32("int8")?)?;
        Ok(Index { rows, ..self })
    }

    /// Keeps a bit for each element, whether it is above 0, of vectors and queries. The score estimates the cosine by the
    /// share of bits that agree. Find a few times as many as are needed, and compare them again by their vectors.
    ///
    /// # Errors
    /// Returns an error if the vectors are not in f32, or are compared by their dot product, of which bits keep no length.
    pub fn bits(self) -> Result<Index> {
        if self.similarity != SimilarityFunction::Cosine {
            return Err(Error::input("bits keep no lengths of vectors: an index of dot products cannot have them"));
        }
        let rows = packed_bits(self.in_f32("bits")?)?;
        Ok(Index { rows, ..self })
    }

    /// Adds vectors behind the others, stored as these are. The index is copied, so add many at a time.
    ///
    /// # Errors
    /// Returns an error if the length of a vector differs from that of the others, or a number is not finite. The index is
    /// then unchanged.
    pub fn append(&mut self, vectors: &[impl AsRef<[f32]>]) -> Result<()> {
        let added = matrix(vectors, self.dimension, self.similarity)?;
        let joined = |own: &Tensor, added: &Tensor| Tensor::concat(&[own, added], 0);
        self.rows = match (&self.rows, &added) {
            (StoredRows::F32(own), added) => StoredRows::F32(joined(own, added)?),
            (StoredRows::Int8(own, steps), added) => match int8(added)? {
                StoredRows::Int8(added, more) => StoredRows::Int8(joined(own, &added)?, joined(steps, &more)?),
                other => other,
            },
            (StoredRows::Bits(own), added) => match packed_bits(added)? {
                StoredRows::Bits(added) => StoredRows::Bits(joined(own, &added)?),
                other => other,
            },
        };
        Ok(())
    }

    /// Returns the numbers of the `k` vectors that are most similar to `query`, counted from 0 in the order in which they were
    /// given, with their scores, most similar first. Equal scores are in the order of their vectors.
    ///
    /// # Errors
    /// Returns an error if the query has another length than the vectors, or a number that is not finite.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<(usize, f64)>> {
        Ok(self.search_all(&[query], k)?.remove(0))
    }

    /// Returns for each of `queries` what [`Index::search`] does, to the bit, in less time than one after another.
    ///
    /// # Errors
    /// Returns an error as [`Index::search`].
    pub fn search_all(&self, queries: &[impl AsRef<[f32]>], k: usize) -> Result<Vec<Vec<(usize, f64)>>> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let queries = matrix(queries, self.dimension, self.similarity)?;
        let found = self.rows.nearest(self.dimension, &queries, k)?;
        let widen = |found: Vec<(usize, f32)>| found.into_iter().map(|(row, score)| (row, f64::from(score))).collect();
        Ok(found.into_iter().map(widen).collect())
    }

    /// Returns the number of vectors.
    pub fn len(&self) -> usize {
        self.tensor().shape()[0]
    }

    /// Returns whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of elements of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Writes the vectors to a safetensors file, which [`Index::open`] maps. One of `cosine` and `dot`, and one of `f32`, `int8`
    /// and `bits`, name the tensor of the vectors: `cosine.int8` `[N, D / 4]` has four levels in each u32, the first in the lowest
    /// byte, and `cosine.bits` `[N, D / 32]` 32 bits, the first in the lowest. `steps` `[N]` has the level of each vector in int8,
    /// and `dimension` `[]` is D.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written. An existing file is then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let name = format!("{}.{}", measure(self.similarity), self.storage());
        let mut tensors = vec![(name, self.tensor().clone())];
        if let StoredRows::Int8(_, steps) = &self.rows {
            tensors.push((STEPS.to_string(), steps.clone()));
        }
        tensors.push((DIMENSION.to_string(), Tensor::new(self.dimension as i64, &Device::Cpu)?));
        Ok(save_safetensors(path, tensors, &[])?)
    }

    /// Opens a file that [`Index::save`] wrote. The vectors are read from the file as they are needed.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has other contents.
    pub fn open(path: impl AsRef<Path>) -> Result<Index> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let wrong = |reason: String| Error::format(path, reason);
        let stored = [("f32", DType::F32, 1), ("int8", DType::U32, 4), ("bits", DType::U32, 32)];
        let forms = [SimilarityFunction::Cosine, SimilarityFunction::Dot];
        let forms = forms.into_iter().flat_map(|measured| stored.map(|form| (measured, form)));
        let has = |name: &String| file.shape(name).is_some();
        let found = forms.map(|(similarity, form)| (format!("{}.{}", measure(similarity), form.0), similarity, form));
        let Some((name, similarity, (form, dtype, per_column))) = found.into_iter().find(|(name, ..)| has(name)) else {
            return Err(wrong("has no vectors of an index, such as cosine.f32".to_string()));
        };
        let dimension = file.tensor(DIMENSION, &Device::Cpu)?;
        let dimension = match (dimension.shape(), dimension.dtype()) {
            ([], DType::I64) => dimension.to_vec::<i64>()?[0],
            _ => return Err(wrong(format!("{DIMENSION} must be one I64"))),
        };
        let vectors = file.tensor(&name, &Device::Cpu)?;
        let width = usize::try_from(dimension).ok().filter(|width| (1..=MOST_ELEMENTS).contains(width));
        let width =
            width.ok_or_else(|| wrong(format!("{DIMENSION} is {dimension}: must be from 1 to {MOST_ELEMENTS}")))?;
        let columns = width.div_ceil(per_column);
        if vectors.dtype() != dtype || vectors.rank() != 2 || vectors.shape()[1] != columns {
            let (shape, found) = (vectors.shape(), vectors.dtype());
            return Err(wrong(format!(
                "{name} is {found} {shape:?}: must be {dtype} [N, {columns}] for dimension {dimension}"
            )));
        }
        let rows = match form {
            "f32" => StoredRows::F32(vectors),
            "bits" => StoredRows::Bits(vectors),
            _ => {
                let steps = file.tensor(STEPS, &Device::Cpu)?;
                if steps.dtype() != DType::F32 || steps.shape() != [vectors.shape()[0]] {
                    let (shape, count) = (steps.shape(), vectors.shape()[0]);
                    return Err(wrong(format!("{STEPS} is {} {shape:?}: must be f32 [{count}]", steps.dtype())));
                }
                StoredRows::Int8(vectors, steps)
            }
        };
        Ok(Index { rows, dimension: width, similarity })
    }

    fn tensor(&self) -> &Tensor {
        match &self.rows {
            StoredRows::F32(rows) | StoredRows::Int8(rows, _) | StoredRows::Bits(rows) => rows,
        }
    }

    fn storage(&self) -> &'static str {
        match self.rows {
            StoredRows::F32(_) => "f32",
            StoredRows::Int8(..) => "int8",
            StoredRows::Bits(_) => "bits",
        }
    }

    fn in_f32(&self, wanted: &str) -> Result<&Tensor> {
        match &self.rows {
            StoredRows::F32(rows) => Ok(rows),
            _ => Err(Error::input(format!("the index is in {}: make one in {wanted} of the vectors", self.storage()))),
        }
    }
}

/// The most elements of a vector.
const MOST_ELEMENTS: usize = 65_536;
const STEPS: &str = "steps";
const DIMENSION: &str = "dimension";

fn measure(similarity: SimilarityFunction) -> &'static str {
    match similarity {
        SimilarityFunction::Dot => "dot",
        _ => "cosine",
    }
}

/// Returns vectors as a matrix; for cosines, their lengths are 1 or 0.
fn matrix(vectors: &[impl AsRef<[f32]>], dimension: usize, similarity: SimilarityFunction) -> Result<Tensor> {
    let mut matrix = Tensor::zeros(&[vectors.len(), dimension], DType::F32, &Device::Cpu)?;
    let rows = matrix.exclusive_slice::<f32>()?.chunks_exact_mut(dimension);
    for (at, (vector, row)) in vectors.iter().zip(rows).enumerate() {
        let vector = vector.as_ref();
        if vector.len() != dimension {
            let reason = format!("vector {at} has {} elements, others have {dimension}", vector.len());
            return Err(Error::input(reason));
        }
        if let Some(place) = vector.iter().position(|x| !x.is_finite()) {
            return Err(Error::input(format!("vector {at} is {} at element {place}: must be finite", vector[place])));
        }
        let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = match similarity {
            SimilarityFunction::Cosine if squares > 0.0 => 1.0 / squares.sqrt(),
            _ => 1.0,
        };
        row.iter_mut().zip(vector).for_each(|(to, &x)| *to = (f64::from(x) * scale) as f32);
    }
    Ok(matrix)
}

fn int8(rows: &Tensor) -> Result<StoredRows> {
    let (count, width) = (rows.shape()[0], rows.shape()[1]);
    let values = rows.to_vec::<f32>()?;
    let step = |row: &[f32]| row.iter().fold(0f32, |largest, x| largest.max(x.abs())) / 127.0;
    let steps: Vec<f32> = values.chunks_exact(width).map(step).collect();
    let level = |x: f32, step: f32| if step > 0.0 { (x / step).round().clamp(-127.0, 127.0) as i8 } else { 0 };
    let word = |numbers: &[f32], step: f32| {
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(numbers).for_each(|(byte, &x)| *byte = level(x, step) as u8);
        u32::from_ne_bytes(bytes)
    };
    let rows = values.chunks_exact(width).zip(&steps);
    let words: Vec<u32> = rows.flat_map(|(row, &step)| row.chunks(4).map(move |part| word(part, step))).collect();
    let words = Tensor::from_vec(words, &[count, width.div_ceil(4)], &Device::Cpu)?;
    Ok(StoredRows::Int8(words, Tensor::from_vec(steps, &[count], &Device::Cpu)?))
}

fn packed_bits(rows: &Tensor) -> Result<StoredRows> {
    let (count, width) = (rows.shape()[0], rows.shape()[1]);
    let words: Vec<u32> = rows.to_vec::<f32>()?.chunks_exact(width).flat_map(bits).collect();
    Ok(StoredRows::Bits(Tensor::from_vec(words, &[count, width.div_ceil(32)], &Device::Cpu)?))
}

#[cfg(test)]
mod tests {
    use cloze_tensor::random::{Purpose, Stream};

    use super::*;
    use crate::cosine_similarity;

    fn vectors(count: usize, width: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
        (0..count).map(|_| (0..width).map(|_| stream.normal_pair()[0] as f32 * 3.0).collect()).collect()
    }

    /// All vectors with their scores, best first.
    fn ranked(vectors: &[Vec<f32>], score: impl Fn(&[f32]) -> f64) -> Vec<(usize, f64)> {
        let mut ranked: Vec<(usize, f64)> = vectors.iter().map(|vector| score(vector)).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    #[test]
    fn the_nearest_are_those_of_all_comparisons() {
        let (stored, queries) = (vectors(500, 37, 1), vectors(4, 37, 2));
        for similarity in [SimilarityFunction::Cosine, SimilarityFunction::Dot] {
            let index = Index::with_similarity(&stored, similarity).unwrap();
            assert_eq!((index.len(), index.dimension(), index.is_empty()), (500, 37, false));
            let together = index.search_all(&queries, 20).unwrap();
            for (query, found) in queries.iter().zip(together) {
                assert_eq!(index.search(query, 20).unwrap(), found);
                let expected = ranked(&stored, |vector| similarity.compare(query, vector));
                for ((at, score), (expected_at, expected)) in found.into_iter().zip(expected) {
                    assert_eq!(at, expected_at);
                    assert!((score - expected).abs() < 1e-5 * expected.abs().max(1.0), "{score} {expected}");
                }
            }
        }
    }

    /// With a byte or a bit for an element, most of the nearest are still found, and scores are near.
    #[test]
    fn smaller_forms_find_nearly_the_same() {
        let (stored, queries) = (vectors(2000, 128, 1), vectors(20, 128, 2));
        let exact = Index::new(&stored).unwrap();
        let wanted = exact.search_all(&queries, 10).unwrap();
        let recall = |index: &Index, of: usize| -> f64 {
            let found = index.search_all(&queries, of).unwrap();
            let pairs =
                wanted.iter().zip(&found).flat_map(|(wanted, found)| wanted.iter().map(move |(at, _)| (at, found)));
            let hits = pairs.filter(|(at, found)| found.iter().any(|(other, _)| other == *at)).count();
            hits as f64 / (10 * queries.len()) as f64
        };
        let int8 = exact.clone().int8().unwrap();
        for (at, score) in int8.search(&queries[0], 10).unwrap() {
            assert!((score - cosine_similarity(&queries[0], &stored[at])).abs() < 0.005);
        }
        assert!(recall(&int8, 10) > 0.95, "{}", recall(&int8, 10));
        let bits = exact.bits().unwrap();
        let found = bits.search(&queries[0], 3).unwrap();
        let agreeing =
            |at: usize| queries[0].iter().zip(&stored[at]).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count();
        for (at, score) in found {
            assert!((score - (2.0 * agreeing(at) as f64 / 128.0 - 1.0)).abs() < 1e-6);
        }
        // Random vectors are the hardest: the nearest of them are hardly nearer than the others.
        assert!(recall(&bits, 300) > 0.75, "{}", recall(&bits, 300));
    }

    #[test]
    fn files_and_added_vectors_give_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.safetensors");
        let (stored, query) = (vectors(70, 37, 1), vectors(1, 37, 2).remove(0));
        let forms: [fn(Index) -> Result<Index>; 3] = [Ok, Index::int8, Index::bits];
        for form in forms {
            let whole = form(Index::new(&stored).unwrap()).unwrap();
            let mut grown = form(Index::new(&stored[..50]).unwrap()).unwrap();
            grown.append(&stored[50..]).unwrap();
            whole.save(&path).unwrap();
            let opened = Index::open(&path).unwrap();
            let found = whole.search(&query, 9).unwrap();
            assert_eq!(grown.search(&query, 9).unwrap(), found);
            assert_eq!(opened.search(&query, 9).unwrap(), found);
            assert_eq!((opened.len(), opened.dimension()), (70, 37));
            assert!(whole.int8().is_err() == !matches!(grown.rows, StoredRows::F32(_)));
        }
    }

    #[test]
    fn errors_name_the_vector_and_the_file() {
        let message = |result: Result<Index>| result.map(|_| ()).unwrap_err().to_string();
        assert!(message(Index::new(&[] as &[Vec<f32>])).starts_with("no vectors given"));
        let lengths = message(Index::new(&[vec![1.0], vec![1.0, 2.0]]));
        assert_eq!(lengths, "vector 1 has 2 elements, others have 1");
        let infinite = message(Index::new(&[vec![1.0, f32::INFINITY]]));
        assert_eq!(infinite, "vector 0 is inf at element 1: must be finite");
        assert_eq!(message(Index::new(&[[0f32; 0]])), "vector 0 has 0 elements: must have from 1 to 65536");
        assert!(message(Index::with_similarity(&[vec![1.0]], SimilarityFunction::Manhattan)).contains("Manhattan"));
        let dot = Index::with_similarity(&[vec![1.0]], SimilarityFunction::Dot).unwrap();
        assert!(message(dot.bits()).contains("dot products"));

        let mut index = Index::new(&[vec![0.0, 0.0], vec![1.0, 2.0]]).unwrap();
        assert!(index.search(&[1.0], 1).is_err() && index.append(&[vec![1.0]]).is_err());
        assert_eq!(index.search(&[0.0, 0.0], 5).unwrap(), [(0, 0.0), (1, 0.0)]);
        assert!(index.search(&[1.0, 1.0], 0).unwrap().is_empty());
        assert!(index.search_all(&[] as &[Vec<f32>], 3).unwrap().is_empty());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        let other = |tensors: Vec<(&str, Tensor)>| {
            let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor));
            save_safetensors(&path, tensors, &[]).unwrap();
            message(Index::open(&path))
        };
        let two = Tensor::zeros(&[3, 2], DType::F32, &Device::Cpu).unwrap();
        assert!(other(vec![("a", two.clone())]).contains("has no vectors of an index"));
        let dimension = |of: i64| ("dimension", Tensor::new(of, &Device::Cpu).unwrap());
        let found = other(vec![("dot.f32", two.clone()), dimension(7)]);
        assert!(found.ends_with("dot.f32 is f32 [3, 2]: must be f32 [N, 7] for dimension 7"), "{found}");
        assert!(other(vec![("dot.f32", two), dimension(-1)]).contains("dimension is -1: must be from 1 to 65536"));
        let words = Tensor::zeros(&[3, 1], DType::U32, &Device::Cpu).unwrap();
        let steps = Tensor::zeros(&[2], DType::F32, &Device::Cpu).unwrap();
        let found = other(vec![("cosine.int8", words), dimension(3), ("steps", steps)]);
        assert!(found.ends_with("steps is f32 [2]: must be f32 [3]"), "{found}");
    }
}
