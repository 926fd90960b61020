"""mIoU from one confusion matrix of exact integers, in the place of mmseg's IoUMetric."""
