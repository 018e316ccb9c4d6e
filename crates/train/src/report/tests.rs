use super::*;
use crate::EvaluationRecord;

fn record(steps: u32) -> RunRecord {
    let step = |step: u32| StepRecord {
        step,
        epoch: 1,
        loss: 1.0 / f64::from(step),
        learning_rate: 1e-5,
        gradient_norm: 1.0,
        tokens: 100 * u64::from(step),
        elapsed: 0.5 * f64::from(step),
    };
    let values = vec![("loss".into(), 0.5), ("accuracy".into(), 0.75), ("perplexity".into(), 12.0)];
    let evaluations = if steps > 0 { vec![EvaluationRecord { step: steps, values }] } else { Vec::new() };
    RunRecord { steps: (1..=steps).map(step).collect(), evaluations }
}

#[test]
fn shows_all_contents_and_loads_nothing() {
    let record = record(60);
    let page = RunReport::new("A <b>title</b> & more", &record)
        .note("a \"note\"")
        .setting("corpus", "<script>alert(1)</script>")
        .confusion(&["no", "yes"], &[vec![30, 10], vec![0, 0]])
        .examples(&["text", "label"], vec![vec!["a lovely film".into(), "yes".into()]])
        .page()
        .html();
    for said in [
        "<h1>A &lt;b&gt;title&lt;/b&gt; &amp; more</h1>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "no predicted as yes: 10 of 40, 25.0 %",
        "<td>a lovely film</td>",
        "<dt>tokens per second</dt><dd>200</dd>",
        "<dt>training time</dt><dd>30.0 s</dd>",
        "Evaluation: accuracy",
        "Evaluation: perplexity",
    ] {
        assert!(page.contains(said), "{said}");
    }
    for never in ["<script", "http", "src=", "url(", "NaN"] {
        assert!(!page.contains(never), "{never}");
    }
}

#[test]
fn any_record_makes_a_page() {
    let mut odd = record(3);
    odd.steps.iter_mut().for_each(|step| (step.loss, step.elapsed) = (f64::NAN, 0.0));
    for record in [RunRecord::default(), record(1), odd] {
        let page = RunReport::new("", &record).confusion::<&str>(&[], &[]).page().html();
        assert!(page.ends_with("</html>\n") && !page.contains("NaN") && !page.contains("inf"));
    }
}

#[test]
fn is_saved_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let record = RunRecord::default();
    let report = RunReport::new("t", &record);
    report.save(folder.path().join("report.html")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("report.html")).unwrap(), report.page().html());
    let error = report.save(folder.path().join("none/report.html")).unwrap_err().to_string();
    assert!(error.contains("none/report.html: cannot write"), "{error}");
}

#[test]
fn describes_the_machine() {
    let machine = Machine::this();
    assert!(machine.threads > 0 && machine.memory > 1 << 20 && machine.processors > 0, "{machine:?}");
    assert!(!machine.system.is_empty() && !machine.version.is_empty());
}
