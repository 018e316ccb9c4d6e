use proptest::prelude::*;

use super::*;

/// Checks that a text is well-formed XML, as far as pictures need it: elements are nested, and quotes are paired.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray > in {svg}");
        let end = rest[start..].find('>').map(|end| start + end).expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "{svg}"),
            (None, false) => open.extend(tag.split(' ').next()),
            (None, true) => {}
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    for never in ["NaN", "inf"] {
        let near = svg.find(never).map(|at| svg.get(at.saturating_sub(80)..at + 80).unwrap_or(never));
        assert_eq!(near, None);
    }
}

fn line(points: Vec<(f64, f64)>, logarithmic: bool) -> Picture {
    let series = Series::new("a & b", points).smoothed(3.0).markers();
    let chart = LineChart::new("<Loss>").axes("step", "loss \"nats\"").series(series);
    (if logarithmic { chart.logarithmic() } else { chart }).draw()
}

#[test]
fn text_is_escaped() {
    let svg = line(vec![(1.0, 2.0)], false).svg();
    assert!(svg.contains("&lt;Loss&gt;") && svg.contains("a &amp; b") && svg.contains("&quot;nats&quot;"));
    assert_well_formed(&svg);
}

/// 0 is at the bottom of the plane, 10 at its top.
#[test]
fn lines_go_where_their_values_are() {
    let chart = LineChart::new("").size(400.0, 300.0).series(Series::new("", [(0.0, 0.0), (1.0, 10.0), (2.0, 5.0)]));
    let svg = chart.draw().svg();
    let path = svg.split("class=\"ln s0\" d=\"M").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let points: Vec<Vec<f64>> =
        path.split('L').map(|point| point.split(' ').map(|number| number.parse().unwrap()).collect()).collect();
    assert_eq!(points.len(), 3);
    assert!((points[2][0] - 380.0).abs() < 0.01 && (points[1][0] - (points[0][0] + 380.0) / 2.0).abs() < 0.01);
    assert!((points[0][1] - 254.0).abs() < 0.01 && (points[2][1] - (points[0][1] + points[1][1]) / 2.0).abs() < 0.01);
}

#[test]
fn a_gap_is_where_there_is_no_number() {
    let paths = |svg: &str| svg.matches("class=\"ln ").count();
    let with =
        |y| LineChart::new("").series(Series::new("", [(0.0, 1.0), (1.0, 2.0), (2.0, y), (3.0, 1.0)])).draw().svg();
    assert_eq!((paths(&with(5.0)), paths(&with(f64::NAN))), (1, 2));
}

/// A hundred thousand points leave a small file that keeps the one that stands out.
#[test]
fn long_runs_are_thinned() {
    let points = (0..100_000).map(|x| (f64::from(x), if x == 50_000 { 9.0 } else { f64::from(x % 7) }));
    let svg = LineChart::new("").series(Series::new("", points)).draw().svg();
    assert!(svg.len() < 60_000, "{}", svg.len());
    let top = svg.split("class=\"ln s0\" d=\"M").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let heights = top.split('L').filter_map(|point| point.split(' ').nth(1)?.parse::<f64>().ok());
    let mut heights: Vec<f64> = heights.collect();
    heights.sort_by(f64::total_cmp);
    assert!(heights[0] < heights[1] - 10.0, "{:?}", &heights[..3]);
}

#[test]
fn the_average_forgets_slowly_and_starts_without_bias() {
    let svg = line(vec![(1.0, 4.0), (2.0, 4.0), (3.0, 4.0)], false).svg();
    let path = svg.split("class=\"ln s0\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let heights: Vec<&str> = path.split(['M', 'L']).filter_map(|point| point.split(' ').nth(1)).collect();
    assert!(heights.len() == 3 && heights.iter().all(|height| *height == heights[0]), "{path}");
}

#[test]
fn heat_is_opacity() {
    let map =
        |values| HeatMap::new("m", values).range(0.0, 1.0).rows("from", ["a"]).columns("to", ["x", "y"]).draw().svg();
    let svg = map(vec![vec![0.25, f64::NAN]]);
    assert!(svg.contains("fill-opacity=\"0.25\"") && svg.contains("a → x: 0.2500") && !svg.contains("→ y"), "{svg}");
    assert_well_formed(&svg);
    let diverging = HeatMap::new("m", vec![vec![-2.0, 1.0]]).draw().svg();
    assert!(
        diverging.contains("class=\"cd\" fill-opacity=\"1\"")
            && diverging.contains("class=\"ht\" fill-opacity=\"0.5\"")
    );
    let large = HeatMap::new("m", vec![vec![0.5; 200]; 200]).draw().svg();
    assert!(large.len() < 800_000 && large.matches("h1v1h-1z").count() == 40_000, "{}", large.len());
    assert_well_formed(&large);
}

#[test]
fn every_class_has_its_own_look() {
    let plot = (0..30).fold(ScatterPlot::new("classes"), |plot, class| {
        plot.class(format!("class {class}"), [([f64::from(class), f64::from(class % 5)], format!("point {class}"))])
    });
    let svg = plot.hollow_class("more of 3", 3, [([1.0, 1.0], "")]).labels(30).draw().svg();
    assert_eq!(svg.matches("class=\"ho s3\"").count(), 2);
    assert_well_formed(&svg);
    let mut looks: Vec<(String, String)> = Vec::new();
    for class in 0..30 {
        let mut alone = ScatterPlot::new("").without_legend();
        for other in 0..=class {
            alone = alone.class("", (other == class).then_some(([0.0, 0.0], "")));
        }
        let svg = alone.draw().svg();
        let drawn =
            svg.split("class=\"dt ").nth(1).and_then(|rest| rest.split("/>").next()?.split('>').next()).unwrap();
        looks.push((drawn[..2].to_string(), drawn[2..].to_string()));
    }
    looks.sort();
    looks.dedup();
    assert_eq!(looks.len(), 30);
}

#[test]
fn a_confusion_matrix_has_counts_and_parts_of_rows() {
    let svg = ConfusionMatrix::new("c", ["no", "yes"], vec![vec![3, 1], vec![1, 1999]]).draw().svg();
    for said in [">75.0 %<", ">1,999<", ">25.0 %<", "yes predicted as no: 1 of 2000, 0.1 %"] {
        assert!(svg.contains(said), "{said}: {svg}");
    }
    assert_well_formed(&svg);
}

#[test]
fn a_grid_holds_its_pictures() {
    let part = HeatMap::new("part", vec![vec![1.0]]).compact().draw();
    let grid = Grid::new("all", 2)
        .legend(&ScatterPlot::new("").class("a", [([0.0; 2], "")]))
        .picture(part.clone())
        .picture(part.clone())
        .picture(part.clone())
        .draw();
    assert_eq!(grid.svg().matches(&part.body).count(), 3);
    assert!(grid.size.1 > 2.0 * part.size.1 && grid.size.0 >= 2.0 * part.size.0);
    assert_well_formed(&grid.svg());
    assert_well_formed(&Grid::new("", 0).draw().svg());
}

#[test]
fn saves_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let picture = HeatMap::new("m", vec![vec![1.0]]).draw();
    picture.save(folder.path().join("m.svg")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("m.svg")).unwrap(), picture.svg());
    let error = picture.save(folder.path().join("none/m.svg")).unwrap_err().to_string();
    assert!(error.contains("none/m.svg: cannot write"), "{error}");
}

proptest! {
    /// Any numbers and texts make a well-formed picture.
    #[test]
    fn anything_can_be_drawn(
        points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..9),
        title in any::<String>(),
        labels in prop::collection::vec(any::<String>(), 0..4),
    ) {
        for logarithmic in [true, false] {
            assert_well_formed(&line(points.clone(), logarithmic).svg());
        }
        let rows: Vec<Vec<f64>> = points.iter().map(|&(x, y)| vec![x, y]).collect();
        let map = HeatMap::new(title.clone(), rows).rows(title.clone(), labels.clone()).columns("", labels.clone());
        assert_well_formed(&map.numbers().draw().svg());
        let points = points.iter().map(|&(x, y)| ([x, y], title.clone()));
        assert_well_formed(&ScatterPlot::new(title.clone()).class(title.clone(), points).labels(9).draw().svg());
        assert_well_formed(&ConfusionMatrix::new(title.clone(), labels, vec![vec![1], vec![2, 3]]).draw().svg());
    }
}
