// What happens to a product before it is written: bias, GELU, its derivative, addition to what is there.
#pragma once

#include "gelu.cuh"

enum Epilogue : int {
  PLAIN = 0,
  BIAS = 1,       // c = a b + bias
  BIAS_GELU = 2,  // c = gelu(a b + bias), and the pre-activation is kept where there is a place for it
  DGELU = 3,      // c = a b gelu'(pre-activation)
};

template <class T> struct EpilogueArguments {
  const float* bias;  // [n]
  T* pre_activation;  // [m, n], with the rows of c
  int epilogue, gelu;
  int add;            // to what c is
  float scale;        // of the product
};

// The element of column `column`, at `offset` in c and in the pre-activation.
template <class T> DEVICE float finish(const EpilogueArguments<T>& e, float product, int column, size_t offset, float before) {
  float x = product * e.scale;
  switch (e.epilogue) {
    case BIAS: x += e.bias[column]; break;
    case BIAS_GELU:
      x += e.bias[column];
      if (e.pre_activation) {
        T kept;
        store(&kept, {x});
        e.pre_activation[offset] = kept;
        x = to_f32(kept);
      }
      x = gelu(x, e.gelu);
      break;
    case DGELU: x *= gelu_derivative(to_f32(e.pre_activation[offset]), e.gelu); break;
    default: break;
  }
  return e.add ? x + before : x;
}
