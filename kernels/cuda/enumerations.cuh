// Enumerations whose numbers the host passes to kernels. cloze-tensor declares the same ones, and its tests compare names and
// numbers with this file, in which each variant has a line: `Name = number,`.
#pragma once

// Functions of one variable. Those from Scale on take a number as well: x times it, x plus it, x to its power, x or it, whichever
// is larger or smaller.
enum class Unary : int {
  Exp = 0,
  Ln = 1,
  Tanh = 2,
  Sqrt = 3,
  Relu = 4,
  Reciprocal = 5,
  Gelu = 6,
  GeluTanh = 7,
  Sigmoid = 8,
  Abs = 9,
  Scale = 10,
  Shift = 11,
  Power = 12,
  AtLeast = 13,
  AtMost = 14,
};

// Operations on two operands. A comparison is 1 where it holds, and 0 elsewhere.
enum class Binary : int {
  Add = 0,
  Sub = 1,
  Mul = 2,
  Div = 3,
  Maximum = 4,
  Minimum = 5,
  Greater = 6,
  AtLeast = 7,
  Equal = 8,
};

// The last step of a matrix product, before it is written.
enum class EpilogueKind : int {
  Plain = 0,         // c = a b
  Bias = 1,          // c = a b + bias
  BiasGelu = 2,      // c = gelu(a b + bias); the pre-activation is kept if there is memory for it
  GeluGradient = 3,  // c = a b gelu'(pre-activation)
};

// How a sum of rows treats the value in its destination.
enum class Accumulate : int {
  Overwrite = 0,  // it is replaced
  Continue = 1,   // the sum starts from it: the rows are further parts of one product
  Add = 2,        // the finished sum is added to it: another contribution to a gradient
};

// Consumers of random numbers; the others draw on the host only.
enum class Purpose : int {
  Dropout = 0,
  AttentionDropout = 1,
};
