# The compilers and instruction sets of the CPU kernels. Packages with such kernels hold this file (a test compares).
#
# add_isa_objects(TARGET SOURCE MACRO OPTIONS...): SOURCE once per instruction set, with MACRO defined as baseline, avx2 or
# avx512, as part of TARGET, for which HAS_AVX2 and HAS_AVX512 are defined where there are these; which of them a processor
# runs, csrc/isa_dispatch.h finds out when the package is loaded. A universal macOS build compiles every file for both
# architectures at once: it gets the baseline alone.

include(CheckCXXCompilerFlag)

if(MSVC)
  message(FATAL_ERROR "${PROJECT_NAME}: Microsoft's compiler lacks the vector types of GCC and Clang that the CPU kernels are "
                      "written in. On Windows, install under WSL.")
endif()

function(add_isa_objects target source macro)
  add_isa_object(${target} ${source} ${macro} baseline "" ${ARGN})
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
    check_cxx_compiler_flag(-march=x86-64-v3 HAS_X86_64_V3)
    check_cxx_compiler_flag("-march=x86-64-v4 -mprefer-vector-width=512" HAS_X86_64_V4)
    if(HAS_X86_64_V3)
      add_isa_object(${target} ${source} ${macro} avx2 "-march=x86-64-v3" ${ARGN})
      target_compile_definitions(${target} PRIVATE HAS_AVX2)
    endif()
    if(HAS_X86_64_V4)
      add_isa_object(${target} ${source} ${macro} avx512 "-march=x86-64-v4;-mprefer-vector-width=512" ${ARGN})
      target_compile_definitions(${target} PRIVATE HAS_AVX512)
    endif()
  endif()
  if(OpenMP_CXX_FOUND)
    target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  endif()
endfunction()

function(add_isa_object target source macro isa flags)
  set(objects ${target}_${isa})
  add_library(${objects} OBJECT ${source})
  set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
  target_include_directories(${objects} PRIVATE csrc)
  target_compile_definitions(${objects} PRIVATE ${macro}=${isa})
  # -fno-math-errno lets sqrt vectorise. No -ffast-math: NaN and infinity must propagate.
  # -Wno-psabi: vectors wider than the registers never cross a function boundary.
  target_compile_options(${objects} PRIVATE -O3 -fno-math-errno -fno-trapping-math -Wall -Wno-psabi ${ARGN} ${flags})
  if(OpenMP_CXX_FOUND)
    target_link_libraries(${objects} PRIVATE OpenMP::OpenMP_CXX)
  else()
    target_compile_options(${objects} PRIVATE -Wno-unknown-pragmas)
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
endfunction()
