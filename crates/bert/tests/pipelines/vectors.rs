//! Sentence embeddings, and the similarities computed from them.

use super::*;

#[test]
fn poolings_are_computed_saved_and_opened() -> Result {
    let tokenizer = tokenizer()?;
    let encoder = model::<SentenceEncoder>(2, 8)?;
    let batch = Batch::from_encodings(&[tokenizer.encode(TEXTS[0])?, tokenizer.encode(TEXTS[1])?])?;
    let hidden = encoder.bert.forward(&batch, Mode::Eval)?;
    let (first, length) = (hidden.narrow(0, 0, batch.sequences().cu_seqlens()[1] as usize)?, 24);
    let rows: Vec<Vec<f32>> = first.to_vec::<f32>()?.chunks(length).map(<[f32]>::to_vec).collect();
    let column = |c: usize| rows.iter().map(move |row| row[c]);
    let weighted = |column: Vec<f32>| {
        let weights = (1..=column.len()).map(|n| n as f32);
        weights.clone().zip(&column).map(|(weight, x)| weight * x).sum::<f32>() / weights.sum::<f32>()
    };
    let expected: Vec<f32> = (0..length)
        .map(|c| rows[0][c])
        .chain((0..length).map(|c| column(c).fold(f32::MIN, f32::max)))
        .chain((0..length).map(|c| column(c).sum::<f32>() / rows.len() as f32))
        .chain((0..length).map(|c| column(c).sum::<f32>() / (rows.len() as f32).sqrt()))
        .chain((0..length).map(|c| weighted(column(c).collect())))
        .chain((0..length).map(|c| rows[rows.len() - 1][c]))
        .collect();
    let encoder = encoder.pooled_by(&SentencePooling::ALL)?;
    let vectors = encoder.forward(&batch, Mode::Eval)?.to_vec::<f32>()?;
    assert_eq!(vectors.len(), 2 * encoder.dimension());
    vectors.iter().zip(&expected).for_each(|(a, b)| near((*a).into(), *b));

    let dir = tempfile::tempdir()?;
    encoder.normalized(true).save(dir.path())?;
    tokenizer.save(dir.path())?;
    let embedder = SentenceEmbedder::open(dir.path())?;
    let vector = embedder.embed(&TEXTS[..2])?[0].clone();
    let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().zip(&expected).for_each(|(a, b)| near((*a).into(), b / norm));

    let pooling = dir.path().join("1_Pooling/config.json");
    let said = || SentenceEmbedder::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
    std::fs::write(&pooling, r#"{"pooling_mode": "median"}"#)?;
    assert!(said().contains("config.json: pooling_mode is \"median\": must be one of cls, max, mean"), "{}", said());
    std::fs::write(&pooling, r#"{"pooling_mode_median": true}"#)?;
    assert!(said().contains("pooling_mode_median is true: this field is not supported"), "{}", said());
    std::fs::write(&pooling, r#"{"pooling_mode": ["cls", "mean"]}"#)?;
    assert_eq!(SentenceEmbedder::open(dir.path())?.dimension(), 48);
    // Poolings are concatenated in the given order.
    let other = tempfile::tempdir()?;
    let reversed = model::<SentenceEncoder>(2, 8)?.pooled_by(&[SentencePooling::Mean, SentencePooling::Cls])?;
    reversed.save(other.path())?;
    let again = SentenceEncoder::open(other.path(), &Device::Cpu)?;
    let both = [reversed.forward(&batch, Mode::Eval)?, again.forward(&batch, Mode::Eval)?];
    assert_eq!(both[0].to_vec::<f32>()?, both[1].to_vec::<f32>()?);
    let modules = dir.path().join("modules.json");
    let list = |path: &str, second: &str| {
        let entry = |path, class| serde_json::json!({"path": path, "type": class});
        let first = entry(path, "sentence_transformers.models.Transformer");
        std::fs::write(&modules, serde_json::json!([first, entry("1_Pooling", second)]).to_string())
    };
    list("../x", "sentence_transformers.models.Pooling")?;
    assert!(said().contains("../x is not a folder inside it"), "{}", said());
    for (second, why) in [
        ("sentence_transformers.models.CNN", "module 1 must be one of Pooling, Dense, Normalize"),
        ("mine.Pooling", "type is \"mine.Pooling\": module 1 must be one of Pooling"),
        ("sentence_transformers.models.Dense", "module 1 must be a Pooling"),
    ] {
        list("", second)?;
        assert!(said().contains(why), "{}", said());
    }
    // The packages of version 6.
    list("", "sentence_transformers.sentence_transformer.modules.pooling.Pooling")?;
    assert_eq!(SentenceEmbedder::open(dir.path())?.dimension(), 48);
    Ok(())
}

#[test]
fn similarities_are_cosines() -> Result {
    let similarity = Similarity::new(model(2, 9)?, tokenizer()?)?;
    let embedder = SentenceEmbedder::new(model(2, 9)?, tokenizer()?)?;
    let vectors = embedder.embed(&TEXTS)?;
    let matrix = similarity.matrix(&TEXTS[..2], &TEXTS)?;
    for (i, row) in matrix.iter().enumerate() {
        for (j, found) in row.iter().enumerate() {
            assert!((found - cosine_similarity(&vectors[i], &vectors[j])).abs() < 1e-5);
        }
    }
    assert!((*similarity.score(TEXTS[0], TEXTS[0])? - 1.0).abs() < 1e-6);
    let ranked = similarity.most_similar(TEXTS[0], &TEXTS, 3)?;
    assert_eq!((ranked.len(), ranked[0].0), (3, 0));
    assert!(ranked.is_sorted_by(|a, b| a.1 >= b.1));
    assert_eq!(cosine_similarity(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
    assert_eq!(cosine_similarity(&[3.0, 4.0], &[-6.0, -8.0]), -1.0);
    Ok(())
}
