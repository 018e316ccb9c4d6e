use std::fs;

use proptest::prelude::*;

use super::*;

fn record(step: u32) -> StepRecord {
    let number = f64::from(step);
    StepRecord {
        step,
        epoch: 1 + step / 4,
        loss: 1.0 / number,
        learning_rate: 1e-5 * number,
        gradient_norm: 0.1 + number,
        tokens: u64::from(step) * 100,
        elapsed: number * 0.3,
    }
}

fn values(accuracy: f64) -> Vec<(String, f64)> {
    vec![("loss".into(), 0.25), ("accuracy".into(), accuracy)]
}

/// Logs six steps, with evaluations after the third and the sixth.
fn six_steps(dir: &Path) -> RunRecord {
    let mut log = RunLog::create(dir).unwrap();
    for step in 1..=6 {
        log.step(&record(step)).unwrap();
        if step % 3 == 0 {
            log.evaluation(step, &values(f64::from(step) / 8.0)).unwrap();
        }
    }
    RunLog::read(dir).unwrap()
}

#[test]
fn reads_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/run");
    let read = six_steps(&dir);
    assert_eq!(read.steps, (1..=6).map(record).collect::<Vec<_>>());
    assert_eq!(read.metrics(), ["loss", "accuracy"]);
    assert_eq!(read.metric("accuracy"), [(3, 0.375), (6, 0.75)]);
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let first = r#"{"kind":"step","step":1,"epoch":1,"loss":1.0,"learning_rate":0.00001,"gradient_norm":1.1,"tokens":100,"elapsed":0.3}"#;
    assert_eq!(text.lines().next(), Some(first));
    assert_eq!(text.lines().nth(3), Some(r#"{"kind":"evaluation","step":3,"loss":0.25,"accuracy":0.375}"#));
}

#[test]
fn resuming_removes_later_steps_and_appends() {
    let folder = tempfile::tempdir().unwrap();
    let whole = six_steps(&folder.path().join("whole"));
    let dir = folder.path().join("resumed");
    six_steps(&dir);
    let path = dir.join("metrics.jsonl");
    let torn = fs::read_to_string(&path).unwrap() + r#"{"kind":"step","st"#;
    fs::write(&path, torn).unwrap();
    assert_eq!(RunLog::read(&dir).unwrap(), whole);

    let mut log = RunLog::resume(&dir, 4).unwrap();
    assert_eq!(RunLog::read(&dir).unwrap().steps.len(), 4);
    for step in 5..=6 {
        log.step(&record(step)).unwrap();
    }
    log.evaluation(6, &values(0.75)).unwrap();
    assert_eq!(RunLog::read(&dir).unwrap(), whole);
    let events = fs::read_dir(&dir).unwrap().filter(|e| e.as_ref().unwrap().path() != path).count();
    assert_eq!(events, 2, "one event file for each start, and no temporary file");
}

#[test]
fn a_new_run_does_not_write_over_another() {
    let folder = tempfile::tempdir().unwrap();
    six_steps(folder.path());
    let error = RunLog::create(folder.path()).unwrap_err().to_string();
    let why = "the directory already contains one: resume it or choose another directory";
    assert!(error.ends_with(&format!("metrics.jsonl: run: {why}")), "{error}");
    RunLog::resume(folder.path(), 0).unwrap();
    assert_eq!(RunLog::read(folder.path()).unwrap(), RunRecord::default());
}

#[test]
fn bad_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    for (bad, why) in [
        ("nonsense", "expected"),
        (r#"{"kind":"other","step":1}"#, "`kind` is neither"),
        (r#"{"kind":"step","step":1}"#, "missing field `epoch`"),
        (r#"{"kind":"evaluation","step":-1}"#, "`step` is not the number"),
        (r#"{"kind":"evaluation","step":1,"f1":"high"}"#, "`f1` is not a number"),
    ] {
        fs::write(&path, format!("\n{bad}\n{{\"kind\":\"evaluation\",\"step\":1}}\n")).unwrap();
        let error = RunLog::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:2: metrics: ") && error.contains(why), "{error}");
        assert!(RunLog::resume(folder.path(), 1).is_err());
    }
    let missing = RunLog::read(folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("nowhere/metrics.jsonl: cannot read"), "{missing}");
}

#[test]
fn reserved_and_duplicate_names_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(folder.path()).unwrap();
    for names in [["kind", "a"], ["a", "step"], ["a", "a"]] {
        let values: Vec<_> = names.map(|name| (name.to_string(), 1.0)).into();
        assert!(log.evaluation(1, &values).is_err());
    }
    assert_eq!(RunLog::read(folder.path()).unwrap(), RunRecord::default());
}

#[test]
fn non_finite_numbers_are_read_as_nan() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(folder.path()).unwrap();
    log.step(&StepRecord { gradient_norm: f64::INFINITY, ..record(1) }).unwrap();
    log.evaluation(1, &values(f64::NAN)).unwrap();
    let read = RunLog::read(folder.path()).unwrap();
    assert!(read.steps[0].gradient_norm.is_nan() && read.evaluations[0].values[1].1.is_nan());
}

proptest! {
    #[test]
    fn numbers_come_back(loss in any::<f64>(), name in "\\PC*") {
        prop_assume!(loss.is_finite() && name != "kind" && name != "step");
        let folder = tempfile::tempdir().unwrap();
        let mut log = RunLog::create(folder.path()).unwrap();
        log.evaluation(7, &[(name.clone(), loss)]).unwrap();
        let read = RunLog::read(folder.path()).unwrap();
        let (found, value) = &read.evaluations[0].values[0];
        prop_assert!(*found == name && value.to_bits() == loss.to_bits(), "{found}: {value}, not {loss}");
    }
}
