// The namespace of one instruction set. The build names it; tools that read one header alone see the baseline.
//
// The CPU core is compiled once per set, into gs::GS_ISA and there into an anonymous namespace. Nothing in it may instantiate a
// standard-library template that another translation unit could share: the linker would keep one copy, perhaps with instructions
// that the running processor lacks.
#pragma once

#ifndef GS_ISA
#define GS_ISA baseline
#endif
