# Vectors of numbers in registers. Left to itself, LLVM turns a loop over samples into one vector at a time, with every
# constant of a polynomial fetched again for each and a chain of dependent operations that leaves the units idle most
# of the time: softplus with its derivative took 5.3 ns a number. Four vectors side by side (16 numbers) share the
# constants and fill the gaps: 2.2 ns.

"Samples per inner loop: every block is a multiple of this, so no loop has a scalar remainder."
const LANES = 16

const BlasReal = Union{Float32,Float64}

"""
Whether code is compiled for this processor and it has AVX-512: twice as long registers, and twice as many. Julia 1.5
does not tell what it compiles for in other words than these. Code for several processors (the runtime wheel) does
without: what half of them lack would be done by two instructions, with too few registers.
"""
function has_long_registers()
    unsafe_string(Base.JLOptions().cpu_target) == "native" && isfile("/proc/cpuinfo") || return false
    for line in eachline("/proc/cpuinfo")
        startswith(line, "flags") && return issubset(("avx512f", "avx512dq", "avx512vl"), split(line))
    end
    return false
end

"Bytes of a register."
const REGISTER = has_long_registers() ? 64 : 32

"""
Samples per inner loop where there are so many: four registers of Float64 in any case, so that chains of dependent
operations overlap. With long registers and 16 numbers, products with the Hessian took 1.4 times as long.
"""
const WIDE = div(REGISTER, 32) * LANES

"""
    Vec{W,T}

`W` numbers of type `T` (Float32 or Float64) that one instruction, or a few side by side, works on.
"""
struct Vec{W,T<:BlasReal}
    data::NTuple{W,VecElement{T}}
end

"What comparing two vectors gives; see [`select`](@ref)."
struct Mask{W}
    data::NTuple{W,VecElement{Bool}}
end

llvm_type(::Type{Float64}) = "double"
llvm_type(::Type{Float32}) = "float"
llvm_int(::Type{Float64}) = "i64"
llvm_int(::Type{Float32}) = "i32"
llvm_suffix(::Type{Float64}) = "f64"
llvm_suffix(::Type{Float32}) = "f32"

Base.eltype(::Type{Vec{W,T}}) where {W,T} = T
Base.eltype(x::Vec) = eltype(typeof(x))

@inline @generated function splat(::Type{Vec{W,T}}, x::T) where {W,T}
    t = llvm_type(T)
    code = """
        %one = insertelement <$W x $t> undef, $t %0, i32 0
        %all = shufflevector <$W x $t> %one, <$W x $t> undef, <$W x i32> zeroinitializer
        ret <$W x $t> %all"""
    return :(Vec{W,T}(Base.llvmcall($code, NTuple{W,VecElement{T}}, Tuple{T}, x)))
end
@inline Vec{W,T}(x::Real) where {W,T<:BlasReal} = splat(Vec{W,T}, T(x))
@inline Vec{W,T}(x::Vec{W,T}) where {W,T<:BlasReal} = x
@inline Base.zero(::Type{V}) where {V<:Vec} = V(0)
@inline Base.zero(x::Vec) = zero(typeof(x))
@inline Base.one(x::Vec) = typeof(x)(1)
@inline Base.oftype(x::Vec, y::Real) = typeof(x)(y)

# The letters %0, %1 are the arguments.
@generated function instruction(::Val{code}, x::Vec{W,T}, y::Vec{W,T}) where {code,W,T}
    D = NTuple{W,VecElement{T}}
    text = "%r = $code <$W x $(llvm_type(T))> %0, %1\nret <$W x $(llvm_type(T))> %r"
    return :(Base.@_inline_meta; Vec{W,T}(Base.llvmcall($text, $D, Tuple{$D,$D}, x.data, y.data)))
end
@generated function intrinsic(::Val{name}, x::Vec{W,T}, more::Vec{W,T}...) where {name,W,T}
    D = NTuple{W,VecElement{T}}
    types, arguments = Expr(:tuple, D, (D for _ in more)...), [:(x.data); [:(more[$i].data) for i in 1:length(more)]]
    return :(Base.@_inline_meta;
             Vec{W,T}(ccall($("llvm.$name.v$W$(llvm_suffix(T))"), llvmcall, $D, $types, $(arguments...))))
end
@generated function compare(::Val{code}, x::Vec{W,T}, y::Vec{W,T}) where {code,W,T}
    D, t = NTuple{W,VecElement{T}}, llvm_type(T)
    text = "%m = fcmp $code <$W x $t> %0, %1\n%r = zext <$W x i1> %m to <$W x i8>\nret <$W x i8> %r"
    return :(Base.@_inline_meta; Mask{W}(Base.llvmcall($text, NTuple{W,VecElement{Bool}}, Tuple{$D,$D}, x.data,
                                                       y.data)))
end

for (f, code) in ((:+, :fadd), (:-, :fsub), (:*, :fmul), (:/, :fdiv))
    @eval @inline Base.$f(x::Vec{W,T}, y::Vec{W,T}) where {W,T} = instruction(Val($(QuoteNode(code))), x, y)
    @eval @inline Base.$f(x::V, y::Real) where {V<:Vec} = $f(x, V(y))
    @eval @inline Base.$f(x::Real, y::V) where {V<:Vec} = $f(V(x), y)
end
for (f, code) in ((:<, :olt), (:<=, :ole), (:>, :ogt), (:>=, :oge))
    @eval @inline Base.$f(x::Vec{W,T}, y::Vec{W,T}) where {W,T} = compare(Val($(QuoteNode(code))), x, y)
    @eval @inline Base.$f(x::V, y::Real) where {V<:Vec} = $f(x, V(y))
end
for (f, name) in ((:muladd, :fmuladd), (:fma, :fma))
    @eval @inline Base.$f(x::V, y::V, z::V) where {V<:Vec} = intrinsic(Val($(QuoteNode(name))), x, y, z)
    @eval @inline Base.$f(x::V, y::Union{V,Real}, z::Union{V,Real}) where {V<:Vec} = $f(x, V(y), V(z))
    @eval @inline Base.$f(x::Real, y::V, z::Union{V,Real}) where {V<:Vec} = $f(V(x), y, V(z))
end
@inline Base.abs(x::Vec) = intrinsic(Val(:fabs), x)
@inline Base.:-(x::Vec) = typeof(x)(-0.0) - x

# Halves are added until one number is left.
@inline @generated function Base.sum(x::Vec{W,T}) where {W,T}
    t, code, w, v = llvm_type(T), "", W, "%0"
    while w > 1
        h = div(w, 2)
        list(from) = join(("i32 $i" for i in from:from+h-1), ", ")
        code *= """
            %low$h = shufflevector <$w x $t> $v, <$w x $t> undef, <$h x i32> <$(list(0))>
            %high$h = shufflevector <$w x $t> $v, <$w x $t> undef, <$h x i32> <$(list(h))>
            %sum$h = fadd <$h x $t> %low$h, %high$h
            """
        w, v = h, "%sum$h"
    end
    code *= "%r = extractelement <1 x $t> $v, i32 0\nret $t %r"
    return :(Base.llvmcall($code, T, Tuple{NTuple{W,VecElement{T}}}, x.data))
end

"""
    select(condition, x, y)

`x` where the condition holds, else `y`: number by number, without a branch.
"""
@inline select(condition::Bool, x, y) = ifelse(condition, x, y)
@inline @generated function select(mask::Mask{W}, x::Vec{W,T}, y::Vec{W,T}) where {W,T}
    D, t = NTuple{W,VecElement{T}}, llvm_type(T)
    code =
        "%m = trunc <$W x i8> %0 to <$W x i1>\n%r = select <$W x i1> %m, <$W x $t> %1, <$W x $t> %2\nret <$W x $t> %r"
    return :(Vec{W,T}(Base.llvmcall($code, $D, Tuple{NTuple{W,VecElement{Bool}},$D,$D}, mask.data, x.data, y.data)))
end
@inline select(mask::Mask, x::Vec, y::Real) = select(mask, x, oftype(x, y))
@inline select(mask::Mask, x::Real, y::Vec) = select(mask, oftype(y, x), y)

"""
    scale_bits(t, shift, bias)

The number whose bits are those of `t`, as an integer, shifted left and raised by `bias`: 2ᵏ from a `t` that holds k in
its lowest bits.
"""
@inline scale_bits(t::T, shift::I, bias::I) where {T<:BlasReal,I} =
    reinterpret(T, (reinterpret(I, t) << shift) + bias)
@inline @generated function scale_bits(t::Vec{W,T}, shift::I, bias::I) where {W,T,I}
    D, f, i = NTuple{W,VecElement{T}}, llvm_type(T), llvm_int(T)
    every(name, argument) = """
        %$(name)1 = insertelement <$W x $i> undef, $i $argument, i32 0
        %$name = shufflevector <$W x $i> %$(name)1, <$W x $i> undef, <$W x i32> zeroinitializer
        """
    code = every("shift", "%1") * every("bias", "%2") * """
        %int = bitcast <$W x $f> %0 to <$W x $i>
        %moved = shl <$W x $i> %int, %shift
        %raised = add <$W x $i> %moved, %bias
        %r = bitcast <$W x $i> %raised to <$W x $f>
        ret <$W x $f> %r"""
    return :(Vec{W,T}(Base.llvmcall($code, $D, Tuple{$D,$I,$I}, t.data, shift, bias)))
end

"""
    load(Vec{W,T}, A, i), store!(A, i, x)

`W` numbers of the array `A` from linear index `i` on. Nothing is checked, and the caller keeps `A` alive. For another
number type the vector is the number itself.
"""
@inline load(::Type{Vec{W,T}}, A::Array{T}, i::Int) where {W,T} =
    Vec{W,T}(unsafe_load(Ptr{NTuple{W,VecElement{T}}}(pointer(A, i))))
@inline store!(A::Array{T}, i::Int, x::Vec{W,T}) where {W,T} =
    unsafe_store!(Ptr{NTuple{W,VecElement{T}}}(pointer(A, i)), x.data)
"The vector that loops over samples work on: a multiple of it fits every block."
@inline lanes(::Type{T}) where {T<:BlasReal} = Vec{LANES,T}
@inline lanes(::Type{T}) where {T} = T
@inline wide(::Type{T}) where {T<:BlasReal} = Vec{WIDE,T}
@inline wide(::Type{T}) where {T} = T

"The sums of both halves, as vectors of `LANES` numbers; other numbers as they are."
@inline fold(x) = x
@inline fold(x::Vec{LANES}) = x
@inline @generated function fold(x::Vec{W,T}) where {W,T}
    t, h = llvm_type(T), div(W, 2)
    list(from) = join(("i32 $i" for i in from:from+h-1), ", ")
    code = """
        %low = shufflevector <$W x $t> %0, <$W x $t> undef, <$h x i32> <$(list(0))>
        %high = shufflevector <$W x $t> %0, <$W x $t> undef, <$h x i32> <$(list(h))>
        %r = fadd <$h x $t> %low, %high
        ret <$h x $t> %r"""
    return :(Vec{$h,T}(Base.llvmcall($code, NTuple{$h,VecElement{T}}, Tuple{NTuple{W,VecElement{T}}}, x.data)))
end
@inline width(::Type{Vec{W,T}}) where {W,T} = W
@inline width(::Type) = 1

@inline load(::Type{T}, A::Array{T}, i::Int) where {T} = @inbounds A[i]
@inline store!(A::Array{T}, i::Int, x::T) where {T} = @inbounds A[i] = x

# Not by a sum of 0·x with `@simd`, which lets the compiler assume that there is no NaN: it left most of them unseen.
function all_finite(A::Array)
    finite = true
    @inbounds for i in eachindex(A)
        finite &= isfinite(A[i])
    end
    return finite
end
