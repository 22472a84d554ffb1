//! What a timeline shows: panels under each other on one time axis.

/// What is seen on one time axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    pub title: String,
    pub subtitle: String,
    /// First and last second.
    pub span: (f64, f64),
    /// Stretches with their names, shaded.
    pub phases: Vec<(f64, f64, String)>,
    pub panels: Vec<TimePanel>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimePanel {
    pub title: String,
    pub lines: Vec<TimeLine>,
    /// Instants with a value each.
    pub dots: Vec<(f64, f64)>,
    /// Instants, marked at the axis.
    pub ticks: Vec<f64>,
}

/// One series: stretches of time with a value each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimeLine {
    pub name: &'static str,
    pub colour: Colour,
    pub steps: Vec<(f64, f64, f64)>,
}

/// The two colours of a panel's series; the page's sheet gives the shades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// What goes in, or the first of two.
    Blue,
    /// What goes out, or the second.
    Orange,
}
