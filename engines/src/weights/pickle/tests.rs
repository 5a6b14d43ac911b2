//! Pickles written by hand, good and hostile.

use super::machine::{MAX_NODES, Machine, Node};
use super::*;

/// Writes pickles instruction by instruction.
#[derive(Clone, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer(vec![0x80, 2])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Writer {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Writer {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub(crate) fn int(self, number: i32) -> Writer {
        self.raw(b"J").raw(&number.to_le_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Writer {
        self.raw(b"c").raw(format!("{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn tuple(self, numbers: &[i32]) -> Writer {
        numbers.iter().fold(self.raw(b"("), |writer, number| writer.int(*number)).raw(b"t")
    }

    /// A tensor of `kind` over a storage of `stored` numbers.
    pub(crate) fn tensor(
        self,
        kind: &str,
        key: &str,
        stored: i32,
        offset: i32,
        shape: &[i32],
        strides: &[i32],
    ) -> Writer {
        let storage = self.global("torch._utils", "_rebuild_tensor_v2").raw(b"((").text("storage");
        let storage = storage.global("torch", &format!("{kind}Storage")).text(key).text("cpu").int(stored).raw(b"tQ");
        let view = storage.int(offset).tuple(shape).tuple(strides).raw(b"\x89");
        view.global("collections", "OrderedDict").raw(b")RtR")
    }
}

fn says(writer: Writer) -> String {
    state_dict(&writer.0).unwrap_err()
}

fn tiny() -> Writer {
    let dict = Writer::new().raw(b"}(").text("a").tensor("Float", "0", 6, 0, &[2, 3], &[3, 1]);
    dict.text("b").tensor("Half", "1", 9, 4, &[5], &[1]).raw(b"u.")
}

#[test]
fn a_dictionary_of_tensors_is_read() {
    let bytes = tiny().0;
    let tensors = state_dict(&bytes).unwrap();
    let a = View { kind: Kind::Float, key: "0", stored: 6, offset: 0, shape: vec![2, 3], strides: vec![3, 1] };
    let b = View { kind: Kind::Half, key: "1", stored: 9, offset: 4, shape: vec![5], strides: vec![1] };
    assert_eq!(tensors, [("a", a), ("b", b)]);
}

#[test]
fn kinds_are_in_the_order_of_their_table() {
    for (name, kind, bytes) in KINDS {
        assert_eq!((kind.name(), kind.bytes()), (name, bytes));
    }
}

#[test]
fn what_torch_adds_is_passed_over() {
    // An OrderedDict of a parameter, with the attributes of a module; protocol 4 with its frames and memos.
    let dict = Writer::new()
        .raw(b"\x80\x04\x95")
        .raw(&[0; 8])
        .raw(b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94");
    let dict = dict.text("p").global("torch._utils", "_rebuild_parameter").raw(b"(");
    let dict = dict.tensor("BFloat16", "7", 4, 0, &[], &[]).raw(b"\x88h\x02)Rt").raw(b"Rs");
    let dict = dict.raw(b"}").text("_metadata").raw(b"}s").raw(b"b.");
    let tensors = state_dict(&dict.0).unwrap();
    assert_eq!((tensors.len(), tensors[0].0, tensors[0].1.kind), (1, "p", Kind::BFloat16));
}

#[test]
fn nothing_but_weights_can_be_named() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch", "ComplexFloatStorage"),
    ] {
        let error = says(Writer::new().global(module, name).raw(b"(").text("true").raw(b"tR."));
        assert!(error.contains(&format!("names {module}.{name}, which is not a part of plain weights")), "{error}");
        let named = Writer::new().text(module).text(name).raw(b"\x93.");
        assert!(says(named).contains(&format!("names {module}.{name}")));
    }
    assert!(says(Writer::new().raw(&[b'c'; 1000])).contains("longer than 128 bytes"));
    // Calling a storage, or a dictionary with arguments, is not known either.
    assert!(says(Writer::new().global("torch", "FloatStorage").raw(b")R.")).contains("calls Storage(Float)"));
    assert!(says(Writer::new().global("collections", "OrderedDict").raw(b"]\x85R.")).contains("with 1 arguments"));
}

#[test]
fn unknown_instructions_are_named() {
    assert!(says(Writer::new().raw(b"(ios\nsystem\n.")).contains("0x69 (INST)"));
    assert!(says(Writer::new().raw(b")2.")).contains("0x32 (DUP)"));
    let error = says(Writer::new().raw(b"\xff"));
    assert!(error.contains("the instruction 0xff") && error.ends_with("(byte 2 of the pickle)"), "{error}");
    assert!(says(Writer(vec![0x80, 9])).contains("protocol 9"));
}

#[test]
fn every_truncation_is_an_error() {
    let whole = tiny().0;
    for cut in 0..whole.len() {
        assert!(state_dict(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn huge_lengths_cost_nothing() {
    let huge = u64::MAX.to_le_bytes();
    assert!(says(Writer::new().raw(b"\x8d").raw(&huge)).contains("ends early"));
    assert!(says(Writer::new().raw(b"X").raw(&[0xFF; 4])).contains("4294967295 bytes expected, 0 left"));
    assert!(says(Writer::new().raw(b"\x8a\xff")).contains("ends early"));
    assert!(says(Writer::new().raw(b"\x8a\x09").raw(&[1; 9])).contains("a number of 9 bytes"));
    assert!(says(Writer(vec![b'('; MAX_BYTES + 1])).contains("expected at most"));
    assert!(says(Writer(b"N".repeat(MAX_NODES + 1))).contains("makes more than"));
    assert!(says(Writer([b"N".to_vec(), vec![0x94; MAX_NODES + 1]].concat())).contains("in its memo"));
}

#[test]
fn numbers_of_any_length_are_read() {
    for (bytes, number) in [(&b""[..], 0), (b"\xff", -1), (b"\x00\x01", 256), (&[0, 0, 0, 0, 1], 1 << 32)] {
        let pickle = Writer::new().raw(&[0x8A, bytes.len() as u8]).raw(bytes).raw(b".").0;
        let mut machine = Machine::new(&pickle);
        let top = machine.run().unwrap();
        assert!(matches!(machine.nodes[top], Node::Int(found) if found == number), "{number}");
    }
}

#[test]
fn memo_bombs_and_cycles_stay_small() {
    // Thirty doublings of a tuple: 2^30 parts for whoever would walk them.
    let mut bomb = Writer::new().raw(b")q\x00");
    for _ in 0..30 {
        bomb = bomb.raw(b"h\x00h\x00\x86q\x00");
    }
    assert!(says(bomb.raw(b".")).contains("things on the stack"));
    // A dictionary that holds itself, a list that holds itself.
    assert!(says(Writer::new().raw(b"}q\x00").text("me").raw(b"h\x00s.")).contains("holds a dictionary under me"));
    assert!(says(Writer::new().raw(b"]q\x00h\x00a.")).contains("its pickle holds a list"));
    // A long name that is recalled again and again.
    let long = "n".repeat(10_000);
    let dict = Writer::new().raw(b"}(").text(&long).raw(b"q\x00").tensor("Float", "0", 1, 0, &[1], &[1]).raw(b"q\x01");
    let error = says(dict.raw(&b"h\x00h\x01".repeat(1000)).raw(b"u."));
    assert!(error.contains("two tensors called nnn") && error.len() < 300, "{error}");
    // Depth costs nothing.
    let deep = Writer::new().raw(b")").raw(&b"\x85".repeat(1_000_000)).raw(b".");
    assert!(says(deep).contains("holds a tuple"));
}

#[test]
fn misuse_of_the_stack_is_an_error() {
    for (pickle, expected) in [
        (&b"."[..], "0 things on the stack"),
        (b"NN.", "2 things on the stack"),
        (b"N(.", "1 things on the stack"),
        (b"R", "more from the stack"),
        (b"N(\x85", "more from the stack"),
        (b"}(s", "more from the stack"),
        (b"t", "a mark that is not there"),
        (b"q\x00", "more from the stack"),
        (b"h\x05", "recalls 5, which it never kept"),
        (b"}(Nu", "a key without a value"),
        (b"NNa", "appends to None"),
        (b")NNs", "sets items of a tuple"),
        (b"))R", "calls a tuple"),
        (b"N)b", "attributes to None"),
        (b")Q", "something else than a storage"),
        (b"NN\x93", "something else than two texts"),
    ] {
        let error = says(Writer::new().raw(pickle));
        assert!(error.contains(expected), "{pickle:?}: {error}");
    }
    let wrong = |shape: &[i32], strides: &[i32]| {
        says(Writer::new().raw(b"}").text("a").tensor("Float", "0", 6, 0, shape, strides).raw(b"s."))
    };
    for (shape, strides) in [(&[-1][..], &[1][..]), (&[1, 2], &[1]), (&[1; 9], &[1; 9])] {
        assert!(wrong(shape, strides).contains("up to 8 sizes"));
    }
    assert!(says(Writer::new().raw(b"}").int(3).int(4).raw(b"s.")).contains("a whole number for a name"));
}
