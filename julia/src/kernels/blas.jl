# Matrix products on parts of arrays, without views and without allocation: BLAS for Float32 and Float64, plain loops
# for every other number type.

"""
    Panel(A, first, ld)
    Panel(A, j = 1)

A matrix inside an array, as BLAS has it: the linear index of its first element, and how far apart its columns are. The
second form begins with column `j` of the matrix `A`.
"""
struct Panel{M<:AbstractArray}
    data::M
    first::Int
    ld::Int
end
Panel(A::Matrix, j::Int=1) = Panel(A, 1 + (j - 1) * size(A, 1), size(A, 1))

const libblas = isdefined(LinearAlgebra.BLAS, :libblastrampoline) ? LinearAlgebra.BLAS.libblastrampoline :
                Base.libblas_name

for (T, gemm) in ((Float64, :dgemm_), (Float32, :sgemm_))
    gemm = :(LinearAlgebra.BLAS.@blasfunc($gemm))
    @eval function gemm!(ta::Char, tb::Char, m::Int, n::Int, k::Int, A::Panel{<:Array{$T}}, B::Panel{<:Array{$T}},
                         C::Panel{<:Array{$T}})
        a, b, c = A.data, B.data, C.data
        GC.@preserve a b c ccall(($gemm, libblas), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ref{$T}, Ptr{$T},
             Ref{BLAS.BlasInt}, Ptr{$T}, Ref{BLAS.BlasInt}, Ref{$T}, Ptr{$T}, Ref{BLAS.BlasInt}, Clong, Clong),
            ta, tb, m, n, k, one($T), pointer(a, A.first), A.ld, pointer(b, B.first), B.ld, one($T),
            pointer(c, C.first), C.ld, 1, 1)
        return nothing
    end
end

"""
    gemm!(ta, tb, m, n, k, A, B, C)

C += op(A) op(B) with op(A) m × k and op(B) k × n, panels all; `ta` and `tb` are 'N' or 'T'.
"""
function gemm!(ta::Char, tb::Char, m::Int, n::Int, k::Int, A::Panel, B::Panel, C::Panel)
    ra, ca = ta == 'N' ? (1, A.ld) : (A.ld, 1)
    rb, cb = tb == 'N' ? (1, B.ld) : (B.ld, 1)
    @inbounds for j in 0:n-1, i in 0:m-1
        s = zero(eltype(C.data))
        for l in 0:k-1
            s += A.data[A.first+ra*i+ca*l] * B.data[B.first+rb*l+cb*j]
        end
        C.data[C.first+i+C.ld*j] += s
    end
    return nothing
end
