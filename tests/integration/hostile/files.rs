//! The hostile files: those in `tests/hostile`, with what every guest needs around them, and those that are made here,
//! because nobody would write them down.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hostile");

/// How a component begins.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What a guest gets that does not bring its own.
const HARMLESS: [(&str, &str); 4] = [
    ("(memory $memory ", "(memory $memory 2)"),
    (
        "(func $cabi_realloc ",
        "(func $cabi_realloc (param i32 i32) (param $align i32) (param $size i32) (result i32)
           (local $at i32)
           (local.set $at (i32.and
             (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
             (i32.sub (i32.const 0) (local.get $align))))
           (global.set $heap (i32.add (local.get $at) (local.get $size)))
           (local.get $at))",
    ),
    ("(func $configure ", "(func $configure (result i32) (i32.const 0))"),
    ("(func $process ", "(func $process (result i32) (global.set $heap (i32.const 8192)) (i32.const 0))"),
];

/// The names of the guests in the folder.
pub(super) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(FOLDER).expect("the folder").map(|entry| entry.expect("an entry").path());
    let names = entries.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".wat")?.to_owned()));
    names.filter(|name| name != "prelude").collect()
}

/// Compiles a guest of the folder and writes it to the directory.
pub(super) fn from_text(name: &str, directory: &Path) -> PathBuf {
    let read = |name: &str| std::fs::read_to_string(format!("{FOLDER}/{name}.wat")).expect("a file of the folder");
    let mut fields = read(name);
    for (start, harmless) in HARMLESS {
        if !fields.contains(start) {
            fields.push_str(harmless);
        }
    }
    // The first is in the comment that explains it.
    let (before, after) =
        read("prelude").rsplit_once("{fields}").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("it");
    write(name, directory, &wat(&(before + &fields + &after)))
}

pub(super) fn write(name: &str, directory: &Path, bytes: &[u8]) -> PathBuf {
    let file = directory.join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).expect("written");
    file
}

pub(super) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("valid WAT")
}

/// A component that makes handles of a resource of its own, without end. The contract has none, so no core module could.
pub(super) fn resources() -> Vec<u8> {
    wat(r#"(component
      (type $own (resource (rep i32)))
      (core func $new (canon resource.new $own))
      (core module $module
        (import "own" "new" (func $new (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "configure") (result i32) (i32.const 0))
        (func (export "process") (result i32) (loop (drop (call $new (i32.const 1))) (br 0)) (i32.const 0)))
      (core instance $new (export "new" (func $new)))
      (core instance $i (instantiate $module (with "own" (instance $new))))
      (alias core export $i "memory" (core memory $memory))
      (type $retry-after (record (field "ms" u64) (field "reason" string)))
      (export $retry "retry-after" (type $retry-after))
      (type $a-verdict (variant (case "forward") (case "route" (list string)) (case "drop" string)
        (case "retry" $retry) (case "reject" string)))
      (export $verdict "verdict" (type $a-verdict))
      (func $configure (result (result (error string))) (canon lift (core func $i "configure") (memory $memory)))
      (func $process (result $verdict) (canon lift (core func $i "process") (memory $memory)))
      (instance $handler (export "configure" (func $configure)) (export "process" (func $process)))
      (export "quipu:plugin/handler@0.1.0" (instance $handler)))"#)
}

/// Longer than any plugin, without taking the room on the disk.
pub(super) fn endless(directory: &Path) -> PathBuf {
    let file = write("endless", directory, b"\0asm\x01\0\0\0");
    std::fs::File::options().write(true).open(&file).expect("it is there").set_len((64 << 20) + 1).expect("sparse");
    file
}

/// Components inside of components.
pub(super) fn nested(levels: usize) -> Vec<u8> {
    // By hand, inside out, because the text's parser has a limit of its own.
    let mut inner = COMPONENT.to_vec();
    for _ in 0..levels {
        let mut outer = COMPONENT.to_vec();
        section(&mut outer, 4, &inner);
        inner = outer;
    }
    inner
}

/// The type of a component that has the type of a component in it, and so on: three bytes for each. Whoever reads it by
/// calling himself has no stack left.
pub(super) fn nested_types(levels: usize) -> Vec<u8> {
    let mut types = vec![1, 0x41, 1]; // one type, of a component with one declaration
    for _ in 0..levels {
        types.extend([0x01, 0x41, 1]);
    }
    types.extend([0x01, 0x41, 0]);
    let mut file = COMPONENT.to_vec();
    section(&mut file, 7, &types);
    file
}

/// Each component instantiates the one before it twice.
pub(super) fn doubling(levels: usize) -> Vec<u8> {
    let mut text = String::from("(component (component $c0)");
    for level in 1..=levels {
        let before = level - 1;
        let body = format!(
            "(alias outer 1 $c{before} (component $c)) (instance (instantiate $c)) (instance (instantiate $c))"
        );
        write!(text, "(component $c{level} {body})").expect("text");
    }
    wat(&(text + &format!("(instance (instantiate $c{levels})))")))
}

/// Types of twice as many values, each of the one before it.
pub(super) fn doubling_types(levels: usize) -> Vec<u8> {
    let mut text = String::from("(component (type $t0 u8)");
    for level in 1..=levels {
        let before = level - 1;
        write!(text, "(type $t{level} (tuple $t{before} $t{before}))").expect("text");
    }
    wat(&(text + ")"))
}

/// A function of so many bytes that do nothing.
pub(super) fn long_function(bytes: usize) -> Vec<u8> {
    module_with_body(&[&[0], vec![0x01; bytes].as_slice(), &[0x0b]].concat(), 1)
}

/// A function with blocks inside of each other, two bytes each to open and one to close.
pub(super) fn deep_function(blocks: usize) -> Vec<u8> {
    let opened = [0x02, 0x40].repeat(blocks);
    module_with_body(&[&[0], opened.as_slice(), vec![0x0b; blocks].as_slice(), &[0x0b]].concat(), 1)
}

/// A function that jumps to so many places.
pub(super) fn wide_jump(targets: usize) -> Vec<u8> {
    let mut body = vec![0, 0x02, 0x40, 0x41, 0, 0x0e];
    leb(&mut body, targets);
    body.extend(vec![0; targets + 1]);
    body.extend([0x0b, 0x0b]);
    module_with_body(&body, 1)
}

/// Functions of two bytes each, in any number.
pub(super) fn many_functions(count: usize) -> Vec<u8> {
    module_with_body(&[0, 0x0b], count)
}

/// Functions with 50,000 variables each, which take six bytes.
pub(super) fn many_locals(functions: usize) -> Vec<u8> {
    let mut body = vec![1];
    leb(&mut body, 50_000);
    body.extend([0x7f, 0x0b]);
    module_with_body(&body, functions)
}

/// A core module with so many functions of this body.
fn module_with_body(body: &[u8], count: usize) -> Vec<u8> {
    let mut file = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
    let mut functions = Vec::new();
    leb(&mut functions, count);
    functions.extend(vec![0; count]);
    section(&mut file, 3, &functions);
    let mut code = Vec::new();
    leb(&mut code, count);
    for _ in 0..count {
        leb(&mut code, body.len());
        code.extend(body);
    }
    section(&mut file, 10, &code);
    file
}

fn section(file: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    file.push(id);
    leb(file, bytes.len());
    file.extend(bytes);
}

/// A component with this module in it: all of a component is compiled before anybody asks what it is good for.
pub(super) fn component_of(module: &[u8]) -> Vec<u8> {
    let mut file = COMPONENT.to_vec();
    section(&mut file, 1, module);
    file
}

/// As WebAssembly writes numbers.
fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
}
