# Newton directions for an indefinite Hessian, from the tridiagonal matrix T = QᵀHQ.

"""
    ReflectedFactor{T}(P)

T = L B Lᵀ with blocks of order one and two in B, chosen so that L stays bounded (Bunch, Math. Comp. 28 (1974) 963), and
the eigenvalues of every block replaced by their absolute values, but at least `floor` (as Cheng & Higham, SIAM J. Matrix
Anal. Appl. 19 (1998) 1097, do for dense matrices): L |B| Lᵀ is positive definite, and T itself where T is. O(P) after
the reduction to T; `lowest` is the most negative eigenvalue of a block, at `lowest_at`.
"""
mutable struct ReflectedFactor{T<:AbstractFloat}
    first::Vector{T}        # of the block that begins here
    coupling::Vector{T}
    second::Vector{T}
    pair::Vector{Bool}      # a block of order two begins here
    lower::Vector{T}        # L between a block's last row and the next
    lower_far::Vector{T}    # L between a pair's first row and the next
    floor::T
    lowest::T
    lowest_at::Int
end
function ReflectedFactor{T}(P::Int) where {T}
    z() = zeros(T, P)
    return ReflectedFactor{T}(z(), z(), z(), fill(false, P), z(), z(), zero(T), zero(T), 0)
end

function factor!(F::ReflectedFactor{T}, S::ShiftedSolver{T}, floor::T) where {T}
    P = length(S.diagonal)
    largest = zero(T)
    for i in 1:P
        largest = max(largest, abs(S.diagonal[i]), abs(S.offdiagonal[i]))
    end
    golden = (sqrt(T(5)) - 1) / 2
    F.floor = floor
    F.lowest, F.lowest_at = zero(T), 0
    k, d = 1, S.diagonal[1]
    while k <= P
        e = k < P ? S.offdiagonal[k] : zero(T)
        F.first[k] = d
        F.pair[k] = !(largest * abs(d) >= golden * e^2)
        if !F.pair[k]
            note_lowest!(F, d, k)
            F.lower[k] = iszero(e) ? e : e / d
            k < P && (d = S.diagonal[k+1] - F.lower[k] * e)
            k += 1
        else
            c = S.diagonal[k+1]
            F.coupling[k], F.second[k] = e, c
            note_lowest!(F, (d + c - hypot(d - c, 2e)) / 2, k)
            determinant = d * c - e^2
            f = k + 1 < P ? S.offdiagonal[k+1] : zero(T)
            F.lower_far[k] = -f * e / determinant
            F.lower[k+1] = f * d / determinant
            k + 1 < P && (d = S.diagonal[k+2] - F.lower[k+1] * f)
            k += 2
        end
    end
    return F
end

function note_lowest!(F::ReflectedFactor, value, k::Int)
    value < F.lowest || return nothing
    F.lowest, F.lowest_at = value, k
    return nothing
end

"`y ← (L |B| Lᵀ)⁻¹ y`."
function solve!(F::ReflectedFactor{T}, y::Vector{T}) where {T}
    P, k = length(y), 1
    @inbounds while k <= P
        if !F.pair[k]
            k < P && (y[k+1] -= F.lower[k] * y[k])
            k += 1
        else
            k + 1 < P && (y[k+2] -= F.lower_far[k] * y[k] + F.lower[k+1] * y[k+1])
            k += 2
        end
    end
    k = 1
    @inbounds while k <= P
        if !F.pair[k]
            y[k] /= max(abs(F.first[k]), F.floor)
            k += 1
        else
            # |E|⁻¹ = p I + q E for a matrix E of order two with eigenvalues of both signs
            d, e, c = F.first[k], F.coupling[k], F.second[k]
            gap, determinant = hypot(d - c, 2e), d * c - e^2
            p = -(d^2 + c^2 + 2 * e^2) / (determinant * gap)
            q = (d + c) / (determinant * gap)
            y[k], y[k+1] = p * y[k] + q * (d * y[k] + e * y[k+1]), p * y[k+1] + q * (e * y[k] + c * y[k+1])
            k += 2
        end
    end
    return solve_transposed!(F, y)
end

"`y ← L⁻ᵀ y`."
function solve_transposed!(F::ReflectedFactor{T}, y::Vector{T}) where {T}
    P = length(y)
    k = P
    @inbounds while k >= 1
        if k >= 2 && F.pair[k-1]
            if k < P
                y[k] -= F.lower[k] * y[k+1]
                y[k-1] -= F.lower_far[k-1] * y[k+1]
            end
            k -= 2
        else
            k < P && (y[k] -= F.lower[k] * y[k+1])
            k -= 1
        end
    end
    return y
end

"A direction `y` with yᵀTy < 0, if there is one: L⁻ᵀ times the eigenvector of the most negative block."
function negative_curvature!(y::Vector{T}, F::ReflectedFactor{T}) where {T}
    F.lowest_at == 0 && return false
    fill!(y, zero(T))
    k = F.lowest_at
    y[k] = one(T)
    F.pair[k] && (y[k+1] = (F.lowest - F.first[k]) / F.coupling[k])
    solve_transposed!(F, y)
    return true
end
