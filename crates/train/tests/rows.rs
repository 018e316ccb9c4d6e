//! Rows of real files: `sst2/train.tsv` and `sst2/dev.tsv`, GLUE's SST-2, in the folder that `CLOZE_DATA` names.

use std::path::PathBuf;

use cloze_train::{Columns, label_names, read_rows, sanitize};

#[test]
fn sst2() {
    let Some(data) = std::env::var_os("CLOZE_DATA") else {
        println!("SKIPPED: set CLOZE_DATA to a folder that has sst2/train.tsv and sst2/dev.tsv (GLUE's SST-2)");
        return;
    };
    for (name, count) in [("train", 67_349), ("dev", 872)] {
        let rows = read_rows(PathBuf::from(&data).join(format!("sst2/{name}.tsv")), &Columns::new()).unwrap();
        assert_eq!((rows.len(), rows.last().map(|row| row.line)), (count, Some(count + 1)));
        let names = label_names(&rows).unwrap();
        assert_eq!(names, ["0", "1"]);
        let clean = sanitize(name, rows, Some(&names));
        assert_eq!((clean.texts.len(), clean.dropped.total()), (count, 0), "{}", clean.dropped);
    }
}
