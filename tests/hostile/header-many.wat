;; Sets a thousand headers.
(data (i32.const 1024) "haaa")
(func $letter (param $at i32) (param $n i32)
  (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.and (local.get $n) (i32.const 15)))))
(func $process (result i32) (local $n i32)
  (loop $more
    (call $letter (i32.const 1025) (local.get $n))
    (call $letter (i32.const 1026) (i32.shr_u (local.get $n) (i32.const 4)))
    (call $letter (i32.const 1027) (i32.shr_u (local.get $n) (i32.const 8)))
    (call $set-header (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 1))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
  (i32.const 0))
