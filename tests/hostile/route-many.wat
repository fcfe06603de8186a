;; Routes to 65 subjects.
(data (i32.const 1024) "a")
(func $process (result i32) (local $at i32)
  (local.set $at (i32.const 2048))
  (loop $more
    (i32.store (local.get $at) (i32.const 1024)) (i32.store offset=4 (local.get $at) (i32.const 1))
    (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 4096))))
  (call $verdict (i32.const 1) (i32.const 2048) (i32.const 65)))
