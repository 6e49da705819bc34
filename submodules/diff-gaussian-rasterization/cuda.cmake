# add_cuda_part(PACKAGE): the extension PACKAGE/_cuda of csrc/cuda/*.cu, compiled by nvcc, and csrc/cuda/bindings.cpp,
# and the record PACKAGE/_build.py of what was built. Every package of this repository holds this file (a test compares).
#
# Environment variables, or definitions (pip install -C cmake.define.GRADISEG_CUDA=on ...):
#   GRADISEG_CUDA                auto: where an nvcc works (default); on: fail where none does; off
#   GRADISEG_CUDA_ARCHITECTURES  "80 90+PTX" by default; +PTX also serves newer GPUs; all: every one that nvcc knows
#   CUDACXX, CUDAHOSTCXX         nvcc, and the C++ compiler under it
#
# nvcc is called directly, not as CMake's language CUDA: that costs seconds of probing, and cannot link in the layout of
# NVIDIA's wheels. No torch is involved, and the CUDA runtime is linked statically, so that any build of torch will do.

set(NVCC_FLAGS -std=c++17 -O3 -lineinfo)
set(OLDEST_ARCHITECTURE 75)  # Turing; older ones lack what the kernels synchronise with, and CUDA 13 dropped them

function(option_of name default result)
  if(NOT DEFINED ${name})
    set(${name} "$ENV{${name}}")
  endif()
  if("${${name}}" STREQUAL "")
    set(${name} "${default}")
  endif()
  string(TOLOWER "${${name}}" value)
  set(${result} "${value}" PARENT_SCOPE)
endfunction()

# The nvcc of CUDACXX, CUDA_HOME, this Python's wheels (cuda-toolkit[nvcc]), the path, or the usual folder.
function(find_nvcc result)
  if(DEFINED ENV{CUDACXX})
    set(nvcc "$ENV{CUDACXX}")
  else()
    file(GLOB wheels "${Python_SITELIB}/nvidia/cu*/bin" "${Python_SITELIB}/nvidia/cuda_nvcc/bin")
    find_program(nvcc nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH ${wheels} PATHS /usr/local/cuda PATH_SUFFIXES bin NO_CACHE)
  endif()
  set(${result} "${nvcc}" PARENT_SCOPE)
endfunction()

# "80 90+PTX" as flags of nvcc; all and what it knows as such a list.
function(expand_architectures nvcc wanted list flags)
  if(wanted STREQUAL "all")
    execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE known)
    string(REGEX MATCHALL "[0-9]+" known "${known}")
    list(SORT known COMPARE NATURAL)
    list(FILTER known EXCLUDE REGEX "^[1-6].$|^7[0-4]$")
    string(REPLACE ";" " " wanted "${known}+ptx")
  endif()
  string(REGEX REPLACE "[ ,;]+" ";" wanted "${wanted}")
  foreach(architecture ${wanted})
    string(REGEX MATCH "^[0-9]+" number "${architecture}")
    list(APPEND gencode "-gencode=arch=compute_${number},code=sm_${number}")
    if(architecture MATCHES "ptx$")
      list(APPEND gencode "-gencode=arch=compute_${number},code=compute_${number}")
    endif()
  endforeach()
  string(REPLACE ";" " " wanted "${wanted}")
  string(TOUPPER "${wanted}" wanted)
  set(${list} "${wanted}" PARENT_SCOPE)
  set(${flags} "${gencode}" PARENT_SCOPE)
endfunction()

# Why nvcc cannot be used, found out by compiling nothing with it; empty where it can.
function(try_nvcc nvcc flags version problem)
  set(source "${CMAKE_CURRENT_BINARY_DIR}/try_nvcc.cu")
  file(WRITE "${source}" "#include <cuda_runtime.h>\n#if CUDART_VERSION < 11080\n#error CUDA 11.8 or later is needed\n"
                         "#endif\n__global__ void nothing() {}\n")
  execute_process(
    COMMAND "${nvcc}" ${flags} -c "${source}" -o "${source}.o"
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(REGEX MATCH "[^\n]*([Ee]rror|fatal|not )[^\n]*" line "${output}")
  if(status EQUAL 0)
    set(line "")
  elseif(line STREQUAL "")
    set(line "${nvcc} failed: ${status}")
  endif()
  execute_process(COMMAND "${nvcc}" --version OUTPUT_VARIABLE output ERROR_QUIET)
  string(REGEX MATCH "release ([0-9.]+)" ignored "${output}")
  set(${version} "${CMAKE_MATCH_1}" PARENT_SCOPE)
  set(${problem} "${line}" PARENT_SCOPE)
endfunction()

# Compiles csrc/cuda and links it to the extension _cuda.
function(build_cuda_part package nvcc flags)
  get_filename_component(root "${nvcc}" REALPATH)
  execute_process(COMMAND "${nvcc}" -v --dryrun -c x.cu ERROR_VARIABLE dryrun OUTPUT_QUIET)
  string(REGEX MATCH "TOP=([^\n]+)" ignored "${dryrun}")  # nvcc may be a script or a link: ask where its toolkit is
  string(STRIP "${CMAKE_MATCH_1}" root)
  find_library(cudart cudart_static REQUIRED NO_DEFAULT_PATH NO_CACHE
    PATHS "${root}/lib64" "${root}/lib" "${root}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib"
          "${root}/targets/sbsa-linux/lib" /usr/lib/${CMAKE_SYSTEM_PROCESSOR}-linux-gnu)
  file(GLOB sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
  foreach(source ${sources})
    get_filename_component(name "${source}" NAME)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${name}.o")
    add_custom_command(
      OUTPUT "${object}"
      COMMAND "${nvcc}" ${flags} -I "${CMAKE_CURRENT_SOURCE_DIR}/csrc" -MD -MF "${object}.d" -c "${source}" -o "${object}"
      DEPENDS "${source}" DEPFILE "${object}.d" COMMENT "nvcc ${name}" VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  nanobind_add_module(_cuda NB_STATIC csrc/cuda/bindings.cpp ${objects})
  target_include_directories(_cuda PRIVATE csrc "${root}/include")
  find_package(Threads REQUIRED)
  target_link_libraries(_cuda PRIVATE "${cudart}" Threads::Threads ${CMAKE_DL_LIBS} rt)
  install(TARGETS _cuda LIBRARY DESTINATION ${package})
endfunction()

function(add_cuda_part package)
  option_of(GRADISEG_CUDA auto switch)
  option_of(GRADISEG_CUDA_ARCHITECTURES "80 90+PTX" architectures)
  if(NOT switch MATCHES "^(auto|on|off)$")
    message(FATAL_ERROR "GRADISEG_CUDA is '${switch}'; it takes auto, on or off.")
  endif()
  set(version "")
  if(switch STREQUAL "off")
    set(problem "GRADISEG_CUDA=off when it was built")
  else()
    find_nvcc(nvcc)
    if(nvcc)
      expand_architectures("${nvcc}" "${architectures}" architectures flags)
      set(host "$ENV{CUDAHOSTCXX}")
      if(NOT host)
        set(host "${CMAKE_CXX_COMPILER}")
      endif()
      list(APPEND flags ${NVCC_FLAGS} -ccbin "${host}" -Xcompiler=-fPIC,-fvisibility=hidden --threads=0)
      try_nvcc("${nvcc}" "${flags}" version problem)
    else()
      set(problem "no nvcc was found when it was built")
    endif()
  endif()
  if("${problem}" STREQUAL "")
    set(is_built True)
    build_cuda_part(${package} "${nvcc}" "${flags}")
    message(STATUS "CUDA: on, nvcc ${version}, architectures ${architectures}")
  elseif(switch STREQUAL "on")
    message(FATAL_ERROR "GRADISEG_CUDA=on, but: ${problem}")
  else()
    set(is_built False)
    set(architectures "")
    message(STATUS "CUDA: off, ${problem}")
  endif()
  string(REGEX REPLACE "[\"\\\\]" "'" problem "${problem}")
  file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/_build.py"
    "\"\"\"What was built; written by cuda.cmake.\"\"\"\n\n"
    "CUDA = ${is_built}\nPROBLEM = \"${problem}\"\nNVCC = \"${version}\"\nARCHITECTURES = \"${architectures}\"\n")
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/_build.py" DESTINATION ${package})
endfunction()
