//! Settings as an operator gives them: in layers, with mistakes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use gainsay_startup::{Layers, Settings, SettingsError, Visitor, read, reference_problems};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq)]
struct Example {
    window_ms: u64,
    rate: f64,
    folder: PathBuf,
    key_file: Option<PathBuf>,
    models: Vec<u32>,
    device: Option<String>,
    token: Option<String>,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            window_ms: 300,
            rate: 1.0,
            folder: "here".into(),
            key_file: None,
            models: Vec::new(),
            device: None,
            token: None,
        }
    }
}

impl Settings for Example {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.value("window_ms", &mut self.window_ms);
        visitor.value("rate", &mut self.rate);
        visitor.path("folder", &mut self.folder);
        visitor.optional_path("key_file", &mut self.key_file);
        visitor.list("models", &mut self.models);
        visitor.optional("device", &mut self.device);
        visitor.secret("token", &mut self.token);
    }
}

/// A file that goes with the value.
struct File(PathBuf);

impl File {
    fn holding(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gainsay-settings-{}", Uuid::now_v7().simple()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Example, SettingsError> {
    let file = File::holding(file);
    let mut example = Example::default();
    let layers = Layers::default().file(file.path()).variables(variables.iter().copied());
    read("worker", &mut example, &layers).map(|()| example)
}

fn refusal(file: &str, variables: &[(&str, &str)]) -> String {
    load(file, variables).unwrap_err().to_string()
}

#[test]
fn flags_go_before_variables_and_those_before_the_file() {
    let file = File::holding("[worker]\nwindow_ms = 1\nrate = 0.25\nfolder = 'file'\nmodels = [4, 5]");
    let variables = [("GAINSAY_FOLDER", "variable"), ("GAINSAY_RATE", "0.5"), ("HOME", "elsewhere")];
    let layers = Layers::default()
        .file(file.path())
        .variables(variables)
        .flag("rate", Some(0.75))
        .flag("device", None::<String>);
    let mut example = Example::default();
    read("worker", &mut example, &layers).unwrap();
    let expected = Example {
        window_ms: 1,
        rate: 0.75,
        folder: "variable".into(),
        models: vec![4, 5],
        ..Example::default()
    };
    assert_eq!(example, expected);
}

#[test]
fn nothing_given_changes_nothing() {
    assert_eq!(load("", &[]).unwrap(), Example::default());
    // A variable left empty by a compose file is as good as none, and other programs' sections are theirs.
    assert_eq!(load("[coordinator]\nx = 1", &[("GAINSAY_WINDOW_MS", "")]).unwrap(), Example::default());
}

/// Texts that look like numbers, as tokens made of digits do, stay texts; and numbers may be written as either.
#[test]
fn values_are_read_as_what_the_setting_is() {
    let variables = [("GAINSAY_TOKEN", "0123"), ("GAINSAY_DEVICE", "true"), ("GAINSAY_MODELS", "1, 2,3")];
    let example = load("[worker]\nwindow_ms = '7'\nrate = 1", &variables).unwrap();
    assert_eq!((example.token.as_deref(), example.device.as_deref()), (Some("0123"), Some("true")));
    assert_eq!((example.models, example.window_ms, example.rate), (vec![1, 2, 3], 7, 1.0));
}

/// On a machine with several roles, one may be set apart from the others.
#[test]
fn a_roles_own_variable_goes_before_the_general_one() {
    let variables =
        [("GAINSAY_WORKER_WINDOW_MS", "1"), ("GAINSAY_WINDOW_MS", "2"), ("GAINSAY_COORDINATOR", "x")];
    assert_eq!(load("", &variables).unwrap().window_ms, 1);
}

#[test]
fn what_is_misspelt_is_refused_with_what_was_meant() {
    let text = refusal("[worker]\nwindw_ms = 1", &[]);
    assert!(text.contains("`windw_ms`") && text.contains("`window_ms` is"), "{text}");
    let text = refusal("[worker]\ncolour = 'red'", &[]);
    assert!(text.contains("`colour`") && !text.contains("` is"), "{text}");
    let text = refusal("[wroker]\nwindow_ms = 1", &[]);
    assert!(text.contains("[wroker]") && text.contains("[worker]"), "{text}");
    assert!(refusal("window_ms = 1", &[]).contains("[window_ms]"));
    let text = refusal("", &[("GAINSAY_WINDOWS_MS", "1")]);
    assert!(text.contains("GAINSAY_WINDOWS_MS") && text.contains("GAINSAY_WINDOW_MS"), "{text}");
    assert!(load("", &[("GAINSAY_URL", "x"), ("GAINSAY_API_KEY", "x")]).is_ok(), "those are other programs'");
}

#[test]
fn what_cannot_be_used_is_refused_with_where_it_came_from() {
    let text = refusal("", &[("GAINSAY_WINDOW_MS", "many")]);
    assert!(text.contains("GAINSAY_WINDOW_MS") && text.contains("many"), "{text}");
    let text = refusal("[worker]\nwindow_ms = -1", &[]);
    assert!(text.contains("window_ms") && text.contains("gainsay-settings-"), "{text}");
    assert!(refusal("[worker]\nwindow_ms = [1, 2]", &[]).contains("not a list"));
    assert!(refusal("[worker]\nwindow_ms = {}", &[]).contains("a text or a number"));
    assert!(refusal("[worker]\nmodels = [1, 'x']", &[]).contains("models"));
    assert!(refusal("[worker\n", &[]).contains("cannot be read"));
    assert!(read("worker", &mut Example::default(), &Layers::default().file("/nowhere")).is_err());
}

#[test]
fn secrets_come_from_files_too_and_the_later_layer_decides() {
    let secret = File::holding("sesame\n");
    let path = secret.path().to_str().unwrap();
    let token = |file: &str, variables: &[(&str, &str)]| load(file, variables).unwrap().token;
    assert_eq!(token("", &[("GAINSAY_TOKEN_FILE", path)]).as_deref(), Some("sesame"));
    assert_eq!(token(&format!("[worker]\ntoken_file = '{path}'"), &[]).as_deref(), Some("sesame"));
    let by_variable = token(&format!("[worker]\ntoken_file = '{path}'"), &[("GAINSAY_TOKEN", "direct")]);
    assert_eq!(by_variable.as_deref(), Some("direct"));
    let by_file = token("[worker]\ntoken = 'direct'", &[("GAINSAY_TOKEN_FILE", path)]);
    assert_eq!(by_file.as_deref(), Some("sesame"));

    let both = refusal("", &[("GAINSAY_TOKEN", "secret words"), ("GAINSAY_TOKEN_FILE", path)]);
    assert!(both.contains("set one") && !both.contains("secret words"), "{both}");
    assert!(refusal("[worker]\ntoken = 'a'\ntoken_file = 'b'", &[]).contains("set one"));
    assert!(refusal("", &[("GAINSAY_TOKEN_FILE", "/nowhere")]).contains("/nowhere"));
    let empty = File::holding("\n");
    assert!(refusal("", &[("GAINSAY_TOKEN_FILE", empty.path().to_str().unwrap())]).contains("empty"));
}

/// The reference file is only worth having while nothing is missing from it and nothing in it is wrong.
#[test]
fn a_reference_file_is_checked_line_by_line() {
    let whole = "[worker]\n# a\nwindow_ms = 300\n# b\nrate = 1.0\n# c\nfolder = 'here'\n# d\nkey_file = ''\n\
                 # e\nmodels = []\n# f\ndevice = ''\n# g\ntoken = ''\n# h\ntoken_file = ''\n[coordinator]\n";
    let problems = |text: &str| reference_problems("worker", File::holding(text).path(), Example::default());
    assert_eq!(problems(whole), Vec::<String>::new());
    assert!(problems(&whole.replace("300", "301"))[0].contains("301"));
    assert!(problems(&whole.replace("# h\n", ""))[0].contains("no comment"));
    assert!(problems(&whole.replace("rate = 1.0\n", ""))[0].contains("rate is missing"));
    assert!(problems(&whole.replace("rate", "rat"))[0].contains("`rat`"));
}
