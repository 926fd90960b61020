// mmcv's CUDA kernels as plain C++, one thread, to compare operators with that mmcv has for GPUs only.
//
// Compiled by convnext_dense.benchmark.operators against the sources of mmcv; needs no CUDA.
#include <torch/extension.h>

#include <algorithm>
#include <cfloat>
#include <cmath>

#define PYTORCH_CUDA_HELPER  // in the place of mmcv's header of that name
#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __restrict__
using phalf = at::Half;
using std::max;
using std::min;
struct Dim { int x, y, z; };
static Dim blockIdx{0, 0, 0};
static const Dim threadIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};
inline void __syncthreads() {}
template <typename T> inline void atomicAdd(T *at, T value) { *at += value; }

#include "common_cuda_helper.hpp"
#include "carafe_naive_cuda_kernel.cuh"
#include "deform_roi_pool_cuda_kernel.cuh"
#include "masked_conv2d_cuda_kernel.cuh"
#include "ms_deform_attn_cuda_kernel.cuh"
#include "roi_pool_cuda_kernel.cuh"
#include "sigmoid_focal_loss_cuda_kernel.cuh"
#include "softmax_focal_loss_cuda_kernel.cuh"
#include "sync_bn_cuda_kernel.cuh"

using at::Tensor;
static float *f(const Tensor &t) { return t.numel() ? t.data_ptr<float>() : nullptr; }
static int64_t *l(const Tensor &t) { return t.data_ptr<int64_t>(); }

void roi_pool_forward(Tensor input, Tensor rois, Tensor output, Tensor argmax, int pooled_height, int pooled_width,
                      float spatial_scale) {
  roi_pool_forward_cuda_kernel<float>(output.numel(), f(input), f(rois), f(output), argmax.data_ptr<int>(),
                                      pooled_height, pooled_width, spatial_scale, input.size(1), input.size(2),
                                      input.size(3));
}

void roi_pool_backward(Tensor grad_output, Tensor rois, Tensor argmax, Tensor grad_input, int pooled_height,
                       int pooled_width, float spatial_scale) {
  roi_pool_backward_cuda_kernel<float>(grad_output.numel(), f(grad_output), f(rois), argmax.data_ptr<int>(),
                                       f(grad_input), pooled_height, pooled_width, grad_input.size(1),
                                       grad_input.size(2), grad_input.size(3));
}

void deform_roi_pool_forward(Tensor input, Tensor rois, Tensor offset, Tensor output, int pooled_height,
                             int pooled_width, float spatial_scale, int sampling_ratio, float gamma) {
  deform_roi_pool_forward_cuda_kernel<float>(output.numel(), f(input), f(rois), f(offset), f(output), pooled_height,
                                             pooled_width, spatial_scale, sampling_ratio, gamma, input.size(1),
                                             input.size(2), input.size(3));
}

void deform_roi_pool_backward(Tensor grad_output, Tensor input, Tensor rois, Tensor offset, Tensor grad_input,
                              Tensor grad_offset, int pooled_height, int pooled_width, float spatial_scale,
                              int sampling_ratio, float gamma) {
  deform_roi_pool_backward_cuda_kernel<float>(grad_output.numel(), f(grad_output), f(input), f(rois), f(offset),
                                              f(grad_input), f(grad_offset), pooled_height, pooled_width,
                                              spatial_scale, sampling_ratio, gamma, input.size(1), input.size(2),
                                              input.size(3));
}

void carafe_naive_forward(Tensor features, Tensor masks, Tensor output, int kernel_size, int group_size,
                          int scale_factor) {
  carafe_naive_forward_cuda_kernel<float>(output.numel(), f(features), f(masks), f(output), kernel_size, group_size,
                                          scale_factor, output.size(1), output.size(2), output.size(3));
}

void carafe_naive_backward(Tensor top_grad, Tensor features, Tensor masks, Tensor bottom_grad, Tensor mask_grad,
                           int kernel_size, int group_size, int scale_factor) {
  carafe_naive_backward_cuda_kernel<float>(top_grad.numel(), f(top_grad), f(features), f(masks), f(bottom_grad),
                                           f(mask_grad), kernel_size, group_size, scale_factor, top_grad.size(1),
                                           top_grad.size(2), top_grad.size(3));
}

void masked_im2col_forward(Tensor im, Tensor mask_h_idx, Tensor mask_w_idx, Tensor col, int kernel_h, int kernel_w,
                           int pad_h, int pad_w) {
  int places = mask_h_idx.size(0);
  MaskedIm2colForward<float>(places * im.size(1), f(im), im.size(2), im.size(3), kernel_h, kernel_w, pad_h, pad_w,
                             l(mask_h_idx), l(mask_w_idx), places, f(col));
}

void masked_col2im_forward(Tensor col, Tensor mask_h_idx, Tensor mask_w_idx, Tensor im, int height, int width,
                           int channels) {
  int places = mask_h_idx.size(0);
  MaskedCol2imForward<float>(places * channels, f(col), height, width, channels, l(mask_h_idx), l(mask_w_idx), places,
                             f(im));
}

Tensor ms_deform_attn_forward(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_loc,
                              Tensor attn_weight, int im2col_step) {
  auto output = at::zeros({value.size(0), sampling_loc.size(1), value.size(2) * value.size(3)}, value.options());
  ms_deformable_im2col_gpu_kernel<float>(output.numel(), f(value), l(spatial_shapes), l(level_start_index),
                                         f(sampling_loc), f(attn_weight), value.size(0), value.size(1), value.size(2),
                                         value.size(3), spatial_shapes.size(0), sampling_loc.size(1),
                                         sampling_loc.size(4), f(output));
  return output;
}

void ms_deform_attn_backward(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_loc,
                             Tensor attn_weight, Tensor grad_output, Tensor grad_value, Tensor grad_sampling_loc,
                             Tensor grad_attn_weight, int im2col_step) {
  ms_deformable_col2im_gpu_kernel_gm<float>(grad_output.numel(), f(grad_output), f(value), l(spatial_shapes),
                                            l(level_start_index), f(sampling_loc), f(attn_weight), value.size(0),
                                            value.size(1), value.size(2), value.size(3), spatial_shapes.size(0),
                                            sampling_loc.size(1), sampling_loc.size(4), f(grad_value),
                                            f(grad_sampling_loc), f(grad_attn_weight));
}

void sigmoid_focal_loss_forward(Tensor input, Tensor target, Tensor weight, Tensor output, float gamma, float alpha) {
  sigmoid_focal_loss_forward_cuda_kernel<float>(output.numel(), f(input), l(target), f(weight), f(output), gamma,
                                                alpha, input.size(1));
}

void sigmoid_focal_loss_backward(Tensor input, Tensor target, Tensor weight, Tensor grad_input, float gamma,
                                 float alpha) {
  sigmoid_focal_loss_backward_cuda_kernel<float>(grad_input.numel(), f(input), l(target), f(weight), f(grad_input),
                                                 gamma, alpha, input.size(1));
}

void softmax_focal_loss_forward(Tensor input, Tensor target, Tensor weight, Tensor output, float gamma, float alpha) {
  softmax_focal_loss_forward_cuda_kernel<float>(output.numel(), f(input), l(target), f(weight), f(output), gamma,
                                                alpha, input.size(1));
}

void softmax_focal_loss_backward(Tensor input, Tensor target, Tensor weight, Tensor buff, Tensor grad_input,
                                 float gamma, float alpha) {
  softmax_focal_loss_backward_cuda1_kernel<float>(buff.numel(), f(input), l(target), f(weight), f(buff), gamma, alpha,
                                                  input.size(1));
  softmax_focal_loss_backward_cuda2_kernel<float>(grad_input.numel(), f(input), l(target), f(buff), f(grad_input),
                                                  input.size(1));
}

// One block of the kernel for every channel.
template <typename Kernel> void each_channel(int channels, Kernel kernel) {
  for (blockIdx.x = 0; blockIdx.x < channels; blockIdx.x++) kernel();
  blockIdx.x = 0;
}

void sync_bn_forward_mean(Tensor input, Tensor mean) {
  each_channel(input.size(1), [&] {
    sync_bn_forward_mean_cuda_kernel<float>(f(input), f(mean), input.size(0), input.size(1), input.size(2));
  });
}

void sync_bn_forward_var(Tensor input, Tensor mean, Tensor var) {
  each_channel(input.size(1), [&] {
    sync_bn_forward_var_cuda_kernel<float>(f(input), f(mean), f(var), input.size(0), input.size(1), input.size(2));
  });
}

void sync_bn_forward_output(Tensor input, Tensor mean, Tensor var, Tensor weight, Tensor bias, Tensor running_mean,
                            Tensor running_var, Tensor norm, Tensor std, Tensor output, float eps, float momentum,
                            int group_size) {
  each_channel(input.size(1), [&] {
    sync_bn_forward_output_cuda_kernel<float>(f(input), f(mean), f(var), f(running_mean), f(running_var), f(weight),
                                              f(bias), f(norm), f(std), f(output), input.size(0), input.size(1),
                                              input.size(2), eps, momentum, group_size);
  });
}

void sync_bn_backward_param(Tensor grad_output, Tensor norm, Tensor grad_weight, Tensor grad_bias) {
  each_channel(norm.size(1), [&] {
    sync_bn_backward_param_cuda_kernel<float>(f(grad_output), f(norm), f(grad_weight), f(grad_bias), norm.size(0),
                                              norm.size(1), norm.size(2));
  });
}

void sync_bn_backward_data(Tensor grad_output, Tensor weight, Tensor grad_weight, Tensor grad_bias, Tensor norm,
                           Tensor std, Tensor grad_input) {
  sync_bn_backward_data_cuda_kernel<float>(grad_input.numel(), f(grad_output), f(weight), f(grad_weight),
                                           f(grad_bias), f(norm), f(std), f(grad_input), norm.size(0), norm.size(1),
                                           norm.size(2));
}

#define OPERATOR(name) m.def(#name, &name)
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  OPERATOR(roi_pool_forward);
  OPERATOR(roi_pool_backward);
  OPERATOR(deform_roi_pool_forward);
  OPERATOR(deform_roi_pool_backward);
  OPERATOR(carafe_naive_forward);
  OPERATOR(carafe_naive_backward);
  OPERATOR(masked_im2col_forward);
  OPERATOR(masked_col2im_forward);
  OPERATOR(ms_deform_attn_forward);
  OPERATOR(ms_deform_attn_backward);
  OPERATOR(sigmoid_focal_loss_forward);
  OPERATOR(sigmoid_focal_loss_backward);
  OPERATOR(softmax_focal_loss_forward);
  OPERATOR(softmax_focal_loss_backward);
  OPERATOR(sync_bn_forward_mean);
  OPERATOR(sync_bn_forward_var);
  OPERATOR(sync_bn_forward_output);
  OPERATOR(sync_bn_backward_param);
  OPERATOR(sync_bn_backward_data);
}
