/* A V4L2 camera in a library that is loaded before libc (LD_PRELOAD): the kernel's side of open, ioctl, mmap, select and
 * poll for the paths FAKE_CAMERA (a camera) and FAKE_METADATA (a node without pictures).
 *
 * It offers YUYV at 64x48 (30 and 15 Hz), and 32x16 (30 Hz). Pictures come at 30 Hz. Each shows its number in its
 * brightness: luma 16 + number % 200. Buffers are stamped on the monotonic clock, FAKE_LATENCY ms before they are there.
 * Files in the folder FAKE_STATE: while `busy` exists others use the camera, while `silent` exists no picture comes, while
 * `forbidden` or `unplugged` exists it cannot be opened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 8
#define LARGEST (64 * 48 * 2)
static const int sizes[2][2] = {{64, 48}, {32, 16}};
static const double period = 1.0 / 30;
static int camera = -1, metadata = -1, queued[BUFFERS], exposure = 156, automatic = 3;
static unsigned width = 64, height = 48, streaming, number, count;
static double next;
static unsigned char memory[BUFFERS][LARGEST];

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static int fail(int number) {
    errno = number;
    return -1;
}

static int exists(const char *name) {
    char path[PATH_MAX];
    const char *folder = getenv("FAKE_STATE");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "", name);
    return access(path, F_OK) == 0;
}

static int is(const char *path, const char *variable) {
    const char *wanted = getenv(variable);
    return wanted && strcmp(path, wanted) == 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    if (is(path, "FAKE_METADATA")) return metadata = real("/dev/null", flags, mode);
    if (!is(path, "FAKE_CAMERA")) return real(path, flags, mode);
    if (exists("unplugged")) return fail(ENOENT);
    if (exists("forbidden")) return fail(EACCES);
    return camera = real("/dev/null", flags, mode);
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...) {    \
        va_list rest;                               \
        va_start(rest, flags);                      \
        mode_t mode = va_arg(rest, mode_t);         \
        va_end(rest);                               \
        return opened(path, flags, mode);           \
    }
OPEN(open)
OPEN(open64)

int close(int device) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "close");
    if (device >= 0 && device == camera) camera = -1, streaming = 0;
    if (device >= 0 && device == metadata) metadata = -1;
    return real(device);
}

static int ready(void) {
    if (!streaming || exists("silent")) return 0;
    return monotonic() >= next;
}

static int dequeue(struct v4l2_buffer *buffer) {
    if (!ready()) return fail(EAGAIN);
    for (unsigned index = 0; index < count; index++) {
        if (!queued[index]) continue;
        double now = monotonic();
        while (next + period <= now) next += period, number++;
        double stamp = next - 1e-3 * atof(getenv("FAKE_LATENCY") ? getenv("FAKE_LATENCY") : "0");
        next += period;
        queued[index] = 0;
        for (unsigned byte = 0; byte < width * height * 2; byte++)
            memory[index][byte] = byte & 1 ? 128 : 16 + number % 200;
        number++;
        memset(buffer, 0, sizeof *buffer);
        buffer->index = index, buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE, buffer->memory = V4L2_MEMORY_MMAP;
        buffer->bytesused = width * height * 2, buffer->length = LARGEST;
        buffer->flags = V4L2_BUF_FLAG_DONE | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        buffer->timestamp.tv_sec = (long)stamp;
        buffer->timestamp.tv_usec = (long)(1e6 * (stamp - (long)stamp));
        return 0;
    }
    return fail(EAGAIN);
}

static int format(struct v4l2_format *wanted, int set) {
    if (wanted->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
    if (set && exists("busy")) return fail(EBUSY);
    if (set) {
        int small = wanted->fmt.pix.width <= 32;
        width = sizes[small][0], height = sizes[small][1];
    }
    struct v4l2_pix_format *pixels = &wanted->fmt.pix;
    pixels->width = width, pixels->height = height, pixels->pixelformat = V4L2_PIX_FMT_YUYV;
    pixels->field = V4L2_FIELD_NONE, pixels->bytesperline = width * 2, pixels->sizeimage = width * height * 2;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *found = argument;
        memset(found, 0, sizeof *found);
        strcpy((char *)found->driver, "fake"), strcpy((char *)found->card, "Fake camera");
        found->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
        found->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *found = argument;
        if (found->index > 0) return fail(EINVAL);
        found->pixelformat = V4L2_PIX_FMT_YUYV;
        strcpy((char *)found->description, "YUYV 4:2:2");
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *found = argument;
        if (found->index > 1 || found->pixel_format != V4L2_PIX_FMT_YUYV) return fail(EINVAL);
        found->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        found->discrete.width = sizes[found->index][0], found->discrete.height = sizes[found->index][1];
        return 0;
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *found = argument;
        if (found->index >= (found->width == 64 ? 2u : 1u)) return fail(EINVAL);
        found->type = V4L2_FRMIVAL_TYPE_DISCRETE;
        found->discrete.numerator = 1, found->discrete.denominator = found->index ? 15 : 30;
        return 0;
    }
    case VIDIOC_G_FMT: return format(argument, 0);
    case VIDIOC_S_FMT: return format(argument, 1);
    case VIDIOC_TRY_FMT: return format(argument, 1);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *found = argument;
        found->parm.capture.timeperframe.numerator = 1, found->parm.capture.timeperframe.denominator = 30;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = argument;
        if (exists("busy")) return fail(EBUSY);
        count = wanted->count = wanted->count > BUFFERS ? BUFFERS : wanted->count;
        memset(queued, 0, sizeof queued);
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *found = argument;
        found->length = LARGEST, found->m.offset = found->index * LARGEST;
        return 0;
    }
    case VIDIOC_QBUF: queued[((struct v4l2_buffer *)argument)->index] = 1; return 0;
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_STREAMON: streaming = 1, next = monotonic() + period; return 0;
    case VIDIOC_STREAMOFF: streaming = 0; return 0;
    case VIDIOC_QUERYCTRL: {
        struct v4l2_queryctrl *found = argument;
        if (found->id != V4L2_CID_EXPOSURE_ABSOLUTE && found->id != V4L2_CID_EXPOSURE_AUTO) return fail(EINVAL);
        found->minimum = found->id == V4L2_CID_EXPOSURE_AUTO ? 0 : 1;
        found->maximum = found->id == V4L2_CID_EXPOSURE_AUTO ? 3 : 5000;
        found->step = 1, found->flags = 0;
        return 0;
    }
    case VIDIOC_G_CTRL:
    case VIDIOC_S_CTRL: {
        struct v4l2_control *control = argument;
        int *value = control->id == V4L2_CID_EXPOSURE_ABSOLUTE ? &exposure
                     : control->id == V4L2_CID_EXPOSURE_AUTO ? &automatic : NULL;
        if (!value) return fail(EINVAL);
        if (request == VIDIOC_G_CTRL) control->value = *value;
        else if (value == &automatic && control->value != 1 && control->value != 3) return fail(EINVAL);
        else if (value == &exposure && (control->value < 1 || control->value > 5000)) return fail(ERANGE);
        else *value = control->value;
        return 0;
    }
    default: return fail(ENOTTY);
    }
}

int ioctl(int device, unsigned long request, ...) {
    static int (*real)(int, unsigned long, void *);
    if (!real) real = dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    request &= 0xffffffff;
    if (device >= 0 && device == metadata && request == VIDIOC_QUERYCAP) {
        answer(request, argument);
        ((struct v4l2_capability *)argument)->device_caps = V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    return device >= 0 && device == camera ? answer(request, argument) : real(device, request, argument);
}

#define MMAP(name, offset_type)                                                                       \
    void *name(void *start, size_t length, int protection, int flags, int device, offset_type at) {   \
        static void *(*real)(void *, size_t, int, int, int, offset_type);                             \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                                    \
        if (device >= 0 && device == camera) return memory[at / LARGEST];                             \
        return real(start, length, protection, flags, device, at);                                    \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

int munmap(void *start, size_t length) {
    static int (*real)(void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "munmap");
    if ((unsigned char *)start >= memory[0] && (unsigned char *)start < memory[0] + sizeof memory) return 0;
    return real(start, length);
}

int select(int highest, fd_set *readers, fd_set *writers, fd_set *errors, struct timeval *timeout) {
    static int (*real)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
    if (!real) real = dlsym(RTLD_NEXT, "select");
    if (camera < 0 || !readers || !FD_ISSET(camera, readers)) return real(highest, readers, writers, errors, timeout);
    double end = monotonic() + (timeout ? timeout->tv_sec + 1e-6 * timeout->tv_usec : 1e9);
    while (!ready() && monotonic() < end) usleep(500);
    return ready();
}

int poll(struct pollfd *waited, nfds_t size, int timeout) {
    static int (*real)(struct pollfd *, nfds_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "poll");
    if (size != 1 || camera < 0 || waited[0].fd != camera) return real(waited, size, timeout);
    double end = monotonic() + (timeout < 0 ? 1e9 : 1e-3 * timeout);
    while (!ready() && monotonic() < end) usleep(500);
    waited[0].revents = ready() ? POLLIN | POLLRDNORM : 0;
    return ready();
}
